//! Archives as a whole: exactness, tightness and what damage does.

use std::path::Path;

use candle_core::{DType, Device, Tensor};
use flow_core::ParamStore;

use super::coder::tests::{calm_image, model, random_image};
use super::*;

fn ideal_bits(model: &Idf, images: &[u8]) -> f64 {
    let [c, h, w] = model.shape();
    let x: Vec<f32> = images.iter().map(|&v| f32::from(v)).collect();
    let x = Tensor::from_vec(x, (images.len() / (c * h * w), c, h, w), &Device::Cpu).unwrap();
    f64::from(model.bits(&x).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap())
}

#[test]
fn archives_return_the_same_bits() {
    let shapes = [[1, 8, 8], [3, 32, 32], [1, 28, 28], [3, 16, 24], [2, 3, 5], [1, 1, 1]];
    for (i, shape) in shapes.into_iter().enumerate() {
        for (levels, noise, couplings) in [(17, 0.0, 1), (256, 0.1, 2), (2, 0.1, 1), (256, 1.0, 3)] {
            let model = model(shape, levels, couplings, noise);
            let mut images = random_image(shape, levels, i as u64);
            let size = images.len();
            images.extend(vec![0; size]);
            images.extend(vec![(levels - 1) as u8; size]);
            let archive = compress(&model, &images).unwrap();
            assert!(decompress(&model, &archive).unwrap() == images, "{shape:?}, {levels} levels, noise {noise}");
        }
    }
}

#[test]
fn an_archive_is_as_long_as_the_model_says() {
    for (levels, noise) in [(17, 0.0), (256, 0.0), (256, 0.05)] {
        let model = model([3, 16, 24], levels, 1, noise);
        let images: Vec<u8> = (0..20).flat_map(|seed| calm_image([3, 16, 24], levels, seed)).collect();
        let archive = compress(&model, &images).unwrap();
        let ratio = 8.0 * archive.len() as f64 / ideal_bits(&model, &images);
        assert!((0.99..1.02).contains(&ratio), "{levels} levels, noise {noise}: {ratio}");
        assert_eq!(bits_per_value(archive.len(), images.len()), 8.0 * archive.len() as f64 / images.len() as f64);
    }
}

#[test]
fn several_blocks_are_the_same_for_any_number_of_threads() {
    let model = model([1, 4, 4], 256, 1, 0.1);
    let images: Vec<u8> = (0..150).flat_map(|seed| random_image([1, 4, 4], 256, seed)).collect();
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| compress(&model, &images).unwrap())
    };
    let archive = on(1);
    assert_eq!(archive, on(3));
    assert_eq!(decompress(&model, &archive).unwrap(), images);
    let header = info(&archive, Path::new("x")).unwrap();
    assert_eq!((header.count, header.shape, header.levels), (150, [1, 4, 4], 256));
    assert_eq!(header.fingerprint, fingerprint(&model).unwrap());
}

#[test]
fn no_images_are_an_archive_too() {
    let model = model([1, 4, 4], 256, 1, 0.1);
    let archive = compress(&model, &[]).unwrap();
    assert!(decompress(&model, &archive).unwrap().is_empty());
}

#[test]
fn every_damaged_byte_is_noticed() {
    let model = model([1, 4, 4], 17, 1, 0.1);
    let images: Vec<u8> = (0..2).flat_map(|seed| random_image([1, 4, 4], 17, seed)).collect();
    let archive = compress(&model, &images).unwrap();
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x10;
        let error = decompress_from(&model, &damaged, Path::new("some.fz")).unwrap_err().to_string();
        assert!(error.starts_with("some.fz: byte "), "byte {at}: {error}");
    }
}

#[test]
fn a_truncated_or_lengthened_archive_is_an_error_with_its_position() {
    let model = model([1, 4, 4], 17, 1, 0.1);
    let archive = compress(&model, &random_image([1, 4, 4], 17, 0)).unwrap();
    for length in 0..archive.len() {
        let error = decompress_from(&model, &archive[..length], Path::new("some.fz")).unwrap_err().to_string();
        assert!(error.starts_with("some.fz: byte "), "{length}: {error}");
    }
    let longer = [&archive[..], b"x"].concat();
    let error = decompress(&model, &longer).unwrap_err().to_string();
    assert!(error.contains(&format!("byte {}", archive.len())) && error.contains("1 more bytes"), "{error}");
}

#[test]
fn another_model_is_refused_by_name() {
    let first = model([1, 4, 4], 17, 1, 0.1);
    let archive = compress(&first, &random_image([1, 4, 4], 17, 0)).unwrap();
    let error = decompress(&model([1, 4, 4], 17, 1, 0.2), &archive).unwrap_err().to_string();
    assert!(error.contains(&format!("{:016x}", fingerprint(&first).unwrap())), "{error}");
    assert!(decompress(&model([1, 8, 4], 17, 1, 0.1), &archive).unwrap_err().to_string().contains("[1, 4, 4]"));
    assert!(decompress(&model([1, 4, 4], 16, 1, 0.1), &archive).unwrap_err().to_string().contains("17 levels"));
}

#[test]
fn values_beyond_the_levels_and_parts_of_images_are_refused() {
    let model = model([1, 4, 4], 17, 1, 0.1);
    assert!(compress(&model, &[17; 16]).unwrap_err().to_string().contains("value 17 at index 0"));
    assert!(compress(&model, &[0; 15]).unwrap_err().to_string().contains("15 bytes"));
}

#[test]
fn files_are_written_whole_and_read_back_with_their_name_in_errors() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("digits.fz");
    let model = model([1, 4, 4], 17, 1, 0.1);
    let images = random_image([1, 4, 4], 17, 0);
    let length = write_archive(&model, &images, &path).unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length as u64);
    assert_eq!(read_archive(&model, &path).unwrap(), images);
    // A failed write leaves the old archive.
    assert!(write_archive(&model, &[0; 15], &path).is_err());
    assert_eq!(read_archive(&model, &path).unwrap(), images);
    std::fs::write(&path, b"FLOWZIP2 and more").unwrap();
    assert!(read_archive(&model, &path).unwrap_err().to_string().contains("digits.fz: byte 0: expected 'FLOWZIP1'"));
    assert!(read_archive(&model, &folder.path().join("none.fz")).unwrap_err().to_string().contains("none.fz"));
}

/// Valid checksums over impossible numbers: an error, not an allocation.
#[test]
fn a_forged_header_is_refused() {
    let model = model([1, 4, 4], 17, 1, 0.1);
    let archive = compress(&model, &random_image([1, 4, 4], 17, 0)).unwrap();
    let forge = |at: usize, bytes: &[u8]| {
        let mut forged = archive.clone();
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        let check = crc32c::crc32c(&forged[..48]).to_le_bytes();
        forged[48..52].copy_from_slice(&check);
        decompress(&model, &forged).unwrap_err().to_string()
    };
    assert!(forge(28, &u32::MAX.to_le_bytes()).contains("images per block"));
    assert!(forge(28, &[0; 4]).contains("images per block"));
    assert!(forge(32, &u64::MAX.to_le_bytes()).contains("byte "));
    assert!(forge(8, &[3]).contains("version 1 or 2"));
}

#[test]
fn names_are_under_the_checksum_and_come_back_with_their_images() {
    let model = model([1, 4, 4], 17, 1, 0.1);
    let images: Vec<u8> = (0..2).flat_map(|seed| random_image([1, 4, 4], 17, seed)).collect();
    let names = ["chat/é 1.png".to_string(), "chien/2.png".to_string()];
    let archive = compress_named(&model, &images, Some(&names)).unwrap();
    let restored = restore(&model, &archive, Path::new("x")).unwrap();
    assert_eq!((restored.images, restored.names.unwrap()), (images.clone(), names.to_vec()));
    assert!(info(&archive, Path::new("x")).unwrap().named);
    assert_eq!(restore(&model, &compress(&model, &images).unwrap(), Path::new("x")).unwrap().names, None);
    for at in 0..archive.len() {
        let mut damaged = archive.clone();
        damaged[at] ^= 0x10;
        let error = restore(&model, &damaged, Path::new("some.fz")).unwrap_err().to_string();
        assert!(error.starts_with("some.fz: byte "), "byte {at}: {error}");
        let error = restore(&model, &archive[..at], Path::new("some.fz")).unwrap_err().to_string();
        assert!(error.starts_with("some.fz: byte "), "length {at}: {error}");
    }
    assert!(compress_named(&model, &images, Some(&names[..1])).unwrap_err().to_string().contains("1 for 2 images"));
}

/// Archives outlive programs. If this fails, the arithmetic of the coder has changed and what was compressed
/// before cannot be read: restore it, or raise the version in the header.
#[test]
fn version_one_archives_stay_what_they_are() {
    let store = ParamStore::new(0, DType::F32, &Device::Cpu);
    let model = Idf::new(&IdfConfig { couplings: 2, ..IdfConfig::default() }, [3, 8, 12], 256, &store).unwrap();
    for param in store.trainable() {
        // Fixed weights that need no generator of random numbers.
        let values: Vec<f32> = (0..param.var().elem_count()).map(|i| (i * 37 % 101) as f32 / 1000.0 - 0.05).collect();
        param.set(&Tensor::from_vec(values, param.var().shape(), &Device::Cpu).unwrap()).unwrap();
    }
    let images: Vec<u8> = (0..2 * 288).map(|i| (100 + i * i % 57) as u8).collect();
    let archive = compress(&model, &images).unwrap();
    assert_eq!(decompress(&model, &archive).unwrap(), images);
    assert_eq!((archive.len(), crc32c::crc32c(&archive[52..])), (592, 594_724_845));
}
