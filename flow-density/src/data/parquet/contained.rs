//! A decoder that asserts much about files which are not what they say, kept from ending more than itself.

use std::cell::Cell;
use std::panic;
use std::sync::Once;
use std::thread;

use ::parquet::basic::Encoding;
use ::parquet::column::page::{Page, PageMetadata, PageReader};
use ::parquet::errors::{ParquetError, Result};

/// The stack of a thread for a file whose metadata are short.
const STACK: usize = 8 << 20;
/// Stack for each byte of the metadata: a group of columns takes five bytes at least.
const STACK_PER_BYTE: usize = 1 << 10;

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` in a thread of its own, with a stack for `metadata` bytes of nested columns; `None` if it panicked, of
/// which nothing is printed. The program's other threads keep their panic hook.
pub(super) fn run<T: Send>(metadata: usize, work: impl FnOnce() -> T + Send) -> Option<T> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let others = panic::take_hook();
        panic::set_hook(Box::new(move |panic| {
            if !CONTAINED.get() {
                others(panic);
            }
        }));
    });
    let stack = STACK.saturating_add(metadata.saturating_mul(STACK_PER_BYTE));
    thread::scope(|scope| {
        let contained = || {
            CONTAINED.set(true);
            work()
        };
        thread::Builder::new().stack_size(stack).spawn_scoped(scope, contained).ok()?.join().ok()
    })
}

/// Pages that promise no more than they hold: the decoder reserves what is promised.
pub(super) struct Checked(pub(super) Box<dyn PageReader>);

impl Checked {
    fn check(page: Page) -> Result<Page> {
        if let Page::DictionaryPage { buf, num_values, .. } = &page
            && *num_values as usize > buf.len()
        {
            return Err(ParquetError::General(format!("a dictionary of {num_values} values in {} bytes", buf.len())));
        }
        match page.encoding() {
            // Their lengths are counted within the page.
            encoding @ (Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY) => {
                Err(ParquetError::NYI(format!("text in the encoding {encoding}")))
            }
            _ => Ok(page),
        }
    }
}

impl Iterator for Checked {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Checked {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        self.0.get_next_page()?.map(Checked::check).transpose()
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.0.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.0.skip_next_page()
    }
}
