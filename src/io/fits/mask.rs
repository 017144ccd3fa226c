//! Masks as FITS images.

use std::path::Path;

use crate::{Error, Result};

/// FITS files are made of blocks of this many bytes.
const BLOCK_BYTES: usize = 2880;

/// Writes a mask as an image of unsigned bytes, 1 where `mask` is true; a file of that name is replaced.
///
/// `mask` is row-major, `width * height` values, as [`affected`](crate::export::mask::affected) makes it.
///
/// # Errors
///
/// [`Error::Input`] when the number of values is wrong, [`Error::Io`] when the file cannot be written.
///
/// ```
/// let path = std::env::temp_dir().join(format!("mask-{}.fits", std::process::id()));
/// skystreak::io::fits::write_mask(&path, 3, 2, &[false, true, false, false, false, true])?;
/// let frame = skystreak::io::fits::read_frame(&path)?;
/// assert_eq!(frame.pixels(), &vec![0_u8, 1, 0, 0, 0, 1].into());
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), skystreak::Error>(())
/// ```
pub fn write_mask(path: &Path, width: usize, height: usize, mask: &[bool]) -> Result<()> {
    if mask.len() != width * height {
        return Err(Error::Input(format!(
            "a mask of {} values for a frame of {width} x {height} (width x height): {}",
            mask.len(),
            path.display()
        )));
    }
    let mut bytes = header(width, height).into_bytes();
    pad(&mut bytes, b' ');
    bytes.extend(mask.iter().map(|&affected| u8::from(affected)));
    pad(&mut bytes, 0);
    std::fs::write(path, bytes).map_err(|e| Error::io(format!("the mask cannot be written ({e})"), path))
}

fn header(width: usize, height: usize) -> String {
    let cards = [
        ("SIMPLE", "T".to_owned(), "FITS standard"),
        ("BITPIX", "8".to_owned(), "unsigned bytes"),
        ("NAXIS", "2".to_owned(), ""),
        ("NAXIS1", width.to_string(), "pixels along a row"),
        ("NAXIS2", height.to_string(), "rows"),
    ];
    let card = |(name, value, comment): &(&str, String, &str)| {
        format!("{:<80}", format!("{name:<8}= {value:>20} / {comment}"))
    };
    let comment = format!("{:<80}", "COMMENT 1: affected by a detection, 0: not");
    cards.iter().map(card).collect::<String>() + &comment + "END"
}

fn pad(bytes: &mut Vec<u8>, filler: u8) {
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), filler);
}
