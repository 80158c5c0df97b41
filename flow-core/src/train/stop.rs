//! A clean stop: a flag that Ctrl-C raises and that the loop looks at between steps.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use crate::{Error, Result};

/// Asks a run to finish its step, write a checkpoint and return. Clones share the flag.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that only [`StopFlag::request`] raises.
    pub fn new() -> Self {
        Self::default()
    }

    /// The flag that Ctrl-C, SIGTERM and SIGHUP raise.
    ///
    /// There is one per process; the handler is installed by the first call. A second Ctrl-C does not
    /// wait for the step to finish: it ends the process with exit code 130.
    ///
    /// # Errors
    /// [`Error::Config`] when the system refuses a handler.
    pub fn on_ctrl_c() -> Result<Self> {
        static FLAG: OnceLock<std::result::Result<StopFlag, String>> = OnceLock::new();
        let installed = FLAG.get_or_init(|| {
            let flag = StopFlag::new();
            let raised = flag.clone();
            let handler = move || {
                if raised.request() {
                    std::process::exit(130);
                }
                eprintln!("stopping after this step; press Ctrl-C again to quit at once");
            };
            ctrlc::set_handler(handler).map(|()| flag).map_err(|e| e.to_string())
        });
        installed.clone().map_err(|reason| Error::config("Ctrl-C handler", reason))
    }

    /// Raises the flag; returns whether it was raised already.
    pub fn request(&self) -> bool {
        self.0.swap(true, Ordering::SeqCst)
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}
