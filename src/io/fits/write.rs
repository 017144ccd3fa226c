//! Writing frames as FITS files.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use fitsio::FitsFile;
use fitsio::errors::Error as FitsError;
use fitsio::images::{ImageDescription, ImageType};

use super::literal_path::is_harmless;
use crate::{Error, Frame, Pixels, Result};

/// Writes a frame as the primary image of a FITS file, in place of a file that is already there.
///
/// Pixels keep their type: unsigned 16 bits are stored with `BZERO` 32768, as the standard asks. What the frame knows
/// goes to `GAIN` (e-/ADU), `RDNOISE` (e-), `SATURATE` (ADU), `BLANK`, `EXPTIME` (s), `DATE-OBS`, `DATE-AVG` and
/// `DATE-END` (UTC). A mask is not written.
///
/// # Errors
///
/// [`Error::Io`] when the file cannot be written.
///
/// ```
/// use skystreak::{Frame, io::fits::write_frame};
///
/// let path = std::env::temp_dir().join("skystreak_write_frame.fits");
/// write_frame(&path, &Frame::new(vec![65_535_u16; 12], 4, 3)?.with_gain(1.5)?)?;
/// assert!(std::fs::read(&path).unwrap().starts_with(b"SIMPLE  ="));
/// # std::fs::remove_file(path).unwrap();
/// # Ok::<(), skystreak::Error>(())
/// ```
pub fn write_frame(path: &Path, frame: &Frame<'_>) -> Result<()> {
    if is_harmless(path) {
        return write(path, frame).map_err(|error| Error::io(format!("cannot write: {error}"), path));
    }
    // CFITSIO takes what is in such a name as instructions: it writes another file, which then gets the name.
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = format!("skystreak-{}-{}.fits", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
    let temporary = std::env::temp_dir().join(name);
    let written = write(&temporary, frame).map_err(|error| error.to_string());
    let copied = written.and_then(|()| std::fs::copy(&temporary, path).map_err(|error| error.to_string()));
    // A file that is left over does no harm, and there is nobody to tell.
    let _ = std::fs::remove_file(&temporary);
    copied.map(|_| ()).map_err(|error| Error::io(format!("cannot write: {error}"), path))
}

fn write(path: &Path, frame: &Frame<'_>) -> Result<(), FitsError> {
    let data_type = match frame.pixels() {
        Pixels::U8(_) => ImageType::UnsignedByte,
        Pixels::U16(_) => ImageType::UnsignedShort,
        Pixels::I16(_) => ImageType::Short,
        Pixels::I32(_) => ImageType::Long,
        Pixels::F32(_) => ImageType::Float,
    };
    let description = ImageDescription { data_type, dimensions: &[frame.height(), frame.width()] };
    let mut file = FitsFile::create(path).with_custom_primary(&description).overwrite().open()?;
    let hdu = file.primary_hdu()?;

    let numbers = [
        ("GAIN", frame.gain_e_per_adu(), "e-/ADU"),
        ("RDNOISE", frame.read_noise_e(), "read noise, e-"),
        ("SATURATE", frame.saturation(), "saturation level, ADU"),
        ("EXPTIME", frame.exposure_secs(), "exposure time, s"),
    ];
    for (name, value, comment) in numbers {
        if let Some(value) = value {
            hdu.write_key(&mut file, name, (value, comment))?;
        }
    }
    if let Some(times) = frame.times() {
        let dates = [
            ("DATE-OBS", &times.start_utc, "start of exposure, UTC"),
            ("DATE-AVG", &times.middle_utc, "middle of exposure, UTC"),
            ("DATE-END", &times.end_utc, "end of exposure, UTC"),
        ];
        for (name, value, comment) in dates {
            if let Some(value) = value {
                hdu.write_key(&mut file, name, (value.as_str(), comment))?;
            }
        }
    }
    if let Some(blank) = frame.blank() {
        // BLANK is compared with the stored number, before BZERO is added.
        let zero = if data_type == ImageType::UnsignedShort { 32_768 } else { 0 };
        hdu.write_key(&mut file, "BLANK", (i64::from(blank) - zero, "missing pixels"))?;
    }
    match frame.pixels() {
        Pixels::U8(pixels) => hdu.write_image(&mut file, pixels),
        Pixels::U16(pixels) => hdu.write_image(&mut file, pixels),
        Pixels::I16(pixels) => hdu.write_image(&mut file, pixels),
        Pixels::I32(pixels) => hdu.write_image(&mut file, pixels),
        Pixels::F32(pixels) => hdu.write_image(&mut file, pixels),
    }
}
