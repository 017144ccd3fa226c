//! FITS files: the only place that knows the format.
//!
//! Pixels keep their type where the file's integers are the values (unsigned 16-bit included); scaled images, 64-bit
//! integers and doubles become single precision. Row 0 of a [`Frame`] is the first row of the file, so FITS pixel
//! (1, 1) is (0.0, 0.0) here.
//!
//! File names are taken literally: brackets, parentheses, a final `+1` or a leading `http:` have no meaning, nothing is
//! fetched. Names that CFITSIO would read in its own way are reached through a short-lived symbolic link in the
//! folder for temporary files; where there are no such links (Windows) they are refused.

mod header;
mod literal_path;
mod mask;
mod write;

use std::convert::Infallible;
use std::fmt;
use std::ops::Range;
use std::path::Path;
use std::str::FromStr;

use fitsio::FitsFile;
use fitsio::hdu::{FitsHdu, HduInfo};
use fitsio::images::{ImageType, ReadImage};

use self::header::Header;
use self::literal_path::LiteralPath;
pub use self::mask::write_mask;
pub use self::write::write_frame;
use crate::{Error, Frame, MAX_SIDE_PX, Pixels, Result};

/// Which HDU of a file to read.
///
/// ```
/// use skystreak::io::fits::HduChoice;
///
/// assert_eq!("2".parse(), Ok(HduChoice::Index(2)));
/// assert_eq!("SCI".parse(), Ok(HduChoice::Name("SCI".into())));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HduChoice {
    /// By position: 0 is the primary HDU.
    Index(usize),
    /// By `EXTNAME`, in upper or lower case.
    Name(String),
}

impl FromStr for HduChoice {
    type Err = Infallible;
    /// A number is a position, anything else a name.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Name(text.to_owned()), Self::Index))
    }
}

impl fmt::Display for HduChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "{index}"),
            Self::Name(name) => write!(f, "{name:?}"),
        }
    }
}

/// What to read from a file that holds more than one image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// The HDU; when none is given, the first that holds an image of two axes or more.
    pub hdu: Option<HduChoice>,
    /// The plane of a cube, from 0. Needed only where there is more than one.
    pub plane: Option<usize>,
}

/// Reads the first image of a FITS file, plain, gzipped or tile-compressed (`.fits.fz`).
///
/// From the header (the image's, else the primary one) come the gain (`EGAIN`, or `GAIN` above 0 up to 100, since
/// that key may also be a camera setting), read noise, saturation level (left out where it lies below the frame's median: such
/// headers are broken), exposure time, and the times. A key that is missing or makes no sense is no error.
///
/// # Errors
///
/// [`Error::Io`] when the file cannot be read or is cut short, [`Error::Input`] when it holds no 2-D image or a cube of
/// several planes, [`Error::Limit`] when a side is longer than [`MAX_SIDE_PX`].
///
/// ```no_run
/// let frame = skystreak::io::fits::read_frame("night1/frame_0001.fits.fz".as_ref())?;
/// println!("{} x {} pixels, gain {:?}", frame.width(), frame.height(), frame.gain_e_per_adu());
/// # Ok::<(), skystreak::Error>(())
/// ```
pub fn read_frame(path: &Path) -> Result<Frame<'static>> {
    read_frame_with(path, &ReadOptions::default())
}

/// Reads a chosen image of a FITS file. See [`read_frame`].
///
/// # Errors
///
/// As [`read_frame`]; also [`Error::Input`] when the HDU or the plane does not exist.
pub fn read_frame_with(path: &Path, options: &ReadOptions) -> Result<Frame<'static>> {
    let literal = LiteralPath::new(path)?;
    let mut file = FitsFile::open(literal.as_path()).map_err(|e| cfitsio("not readable as FITS", &e, path))?;
    let (hdu, shape) = match &options.hdu {
        Some(choice) => open_hdu(&mut file, choice, path)?,
        None => find_image(&mut file, path)?,
    };
    shape.check_side(path)?;
    let plane = shape.plane(options.plane, hdu.number, path)?;
    let range = plane * shape.n_pixels()..(plane + 1) * shape.n_pixels();
    let pixels = if is_quantised(&mut file, &hdu) {
        read_quantised(literal.as_path(), &hdu, range).map(|pixels| (pixels, None))
    } else {
        read_pixels(&mut file, &hdu, range)
    };
    let (pixels, blank) =
        pixels.map_err(|e| cfitsio(&format!("HDU {}: the pixels cannot be read", hdu.number), &e, path))?;
    let mut frame = Frame::new(pixels, shape.width, shape.height)?;
    if let Some(value) = blank {
        frame = frame.with_blank(value);
    }
    Header::new(&mut file, &hdu).describe(frame)
}

/// Sides of an image, px, and how many planes of that size there are.
#[derive(Clone, Copy)]
struct ImageShape {
    width: usize,
    height: usize,
    n_planes: usize,
}

impl ImageShape {
    /// None where there are no pixels in two dimensions.
    fn of(hdu: &FitsHdu) -> Option<Self> {
        let HduInfo::ImageInfo { shape, .. } = &hdu.info else { return None };
        // Slowest axis first: [..planes, height, width].
        let [planes @ .., height, width] = shape.as_slice() else { return None };
        let n_planes = planes.iter().try_fold(1_usize, |n, &p| n.checked_mul(p))?;
        (*width > 0 && *height > 0 && n_planes > 0).then_some(Self { width: *width, height: *height, n_planes })
    }

    fn n_pixels(self) -> usize {
        self.width * self.height
    }

    fn check_side(self, path: &Path) -> Result<()> {
        let (width, height) = (self.width, self.height);
        if width.max(height) <= MAX_SIDE_PX {
            return Ok(());
        }
        Err(Error::Limit {
            what: format!("the longer side of the {width} x {height} image (pixels) in {}", path.display()),
            requested: width.max(height) as u64,
            allowed: MAX_SIDE_PX as u64,
        })
    }

    fn plane(self, chosen: Option<usize>, hdu: usize, path: &Path) -> Result<usize> {
        let n = self.n_planes;
        match chosen {
            None if n == 1 => Ok(0),
            None => Err(input(&format!("HDU {hdu} is a cube of {n} planes: choose one, from 0 to {}", n - 1), path)),
            Some(plane) if plane < n => Ok(plane),
            Some(plane) => Err(input(&format!("plane {plane} of HDU {hdu}: it has planes 0 to {}", n - 1), path)),
        }
    }
}

fn open_hdu(file: &mut FitsFile, choice: &HduChoice, path: &Path) -> Result<(FitsHdu, ImageShape)> {
    let opened = match choice {
        HduChoice::Index(index) => file.hdu(*index),
        HduChoice::Name(name) => file.hdu(name.as_str()),
    };
    let hdu = opened.map_err(|e| {
        let n = file.num_hdus().unwrap_or(0);
        input(&format!("no HDU {choice} among the {n} of the file ({})", reason(&e)), path)
    })?;
    match ImageShape::of(&hdu) {
        Some(shape) => Ok((hdu, shape)),
        None => Err(input(&format!("HDU {choice} holds {}, not a 2-D image", contents(&hdu)), path)),
    }
}

fn find_image(file: &mut FitsFile, path: &Path) -> Result<(FitsHdu, ImageShape)> {
    let n_hdus = file.num_hdus().map_err(|e| cfitsio("the HDUs cannot be counted", &e, path))?;
    let mut seen = Vec::new();
    for index in 0..n_hdus {
        match file.hdu(index) {
            Ok(hdu) => match ImageShape::of(&hdu) {
                Some(shape) => return Ok((hdu, shape)),
                None => seen.push(format!("{index} holds {}", contents(&hdu))),
            },
            Err(e) => seen.push(format!("{index} cannot be read, {}", reason(&e))),
        }
    }
    Err(input(&format!("no HDU holds a 2-D image ({})", seen.join("; ")), path))
}

fn contents(hdu: &FitsHdu) -> String {
    match &hdu.info {
        HduInfo::ImageInfo { shape, .. } if shape.is_empty() => "no data".into(),
        HduInfo::ImageInfo { shape, .. } => {
            let sides: Vec<_> = shape.iter().rev().map(ToString::to_string).collect();
            format!("an array of {}", sides.join(" x "))
        }
        _ => "a table".into(),
    }
}

/// True for a tile-compressed image of floats.
fn is_quantised(file: &mut FitsFile, hdu: &FitsHdu) -> bool {
    hdu.read_key::<i64>(file, "ZBITPIX").is_ok_and(|bits| bits < 0)
}

/// The pixels of a tile-compressed image of floats, missing ones as NaN.
///
/// A missing pixel is stored as an integer that becomes an ordinary-looking value unless CFITSIO is asked to look for
/// it, and the binding cannot ask. The section of a file name can: it unpacks the image into memory with NaN restored.
fn read_quantised(literal: &Path, hdu: &FitsHdu, range: Range<usize>) -> fitsio::errors::Result<Pixels<'static>> {
    let HduInfo::ImageInfo { shape, .. } = &hdu.info else { return Err("not an image".into()) };
    let whole = vec!["*"; shape.len()].join(",");
    let mut unpacked = FitsFile::open(format!("{}[{}][{whole}]", literal.display(), hdu.number))?;
    let copy = unpacked.hdu(hdu.number)?;
    Ok(read::<f32>(&mut unpacked, &copy, range)?.into())
}

/// The pixels of a range, and the value of missing ones where integers stay integers.
fn read_pixels(
    file: &mut FitsFile,
    hdu: &FitsHdu,
    range: Range<usize>,
) -> fitsio::errors::Result<(Pixels<'static>, Option<i32>)> {
    let mut key = |name| hdu.read_key::<f64>(file, name).ok();
    let (scale, zero) = (key("BSCALE").unwrap_or(1.0), key("BZERO").unwrap_or(0.0));
    // In a tile-compressed HDU, BITPIX is that of the table around the image.
    let holds_integers = key("ZBITPIX").or_else(|| key("BITPIX")).is_some_and(|bits| bits > 0.0);
    let blank = if holds_integers { key("BLANK").or_else(|| key("ZBLANK")) } else { None };
    let blank_value = blank.map(|raw| raw * scale + zero);

    let image_type = match hdu.info {
        HduInfo::ImageInfo { image_type, .. } => image_type,
        _ => return Err("not an image".into()),
    };
    let pixels = match (image_type, scale, zero) {
        (ImageType::UnsignedByte, 1.0, 0.0) => read::<u8>(file, hdu, range)?.into(),
        (ImageType::UnsignedShort, 1.0, 32768.0) => read::<u16>(file, hdu, range)?.into(),
        (ImageType::Short, 1.0, 0.0) => read::<i16>(file, hdu, range)?.into(),
        (ImageType::Long, 1.0, 0.0) => read::<i32>(file, hdu, range)?.into(),
        _ => {
            let pixels = match blank_value {
                None => read::<f32>(file, hdu, range)?,
                Some(blank) => {
                    // Half a step would be another value; the sum may be rounded differently in the library.
                    let nearly = 0.25 * scale.abs();
                    let replace = |v: f64| if (v - blank).abs() <= nearly { f32::NAN } else { v as f32 };
                    read::<f64>(file, hdu, range)?.into_iter().map(replace).collect()
                }
            };
            return Ok((pixels.into(), None));
        }
    };
    Ok((pixels, blank_value.map(|value| value as i32)))
}

fn read<T>(file: &mut FitsFile, hdu: &FitsHdu, range: Range<usize>) -> fitsio::errors::Result<Vec<T>>
where
    Vec<T>: ReadImage,
{
    hdu.read_section(file, range.start, range.end)
}

fn input(message: &str, path: &Path) -> Error {
    Error::Input(format!("{message}: {}", path.display()))
}

fn cfitsio(message: &str, error: &fitsio::errors::Error, path: &Path) -> Error {
    Error::io(format!("{message} ({})", reason(error)), path)
}

fn reason(error: &fitsio::errors::Error) -> String {
    match error {
        fitsio::errors::Error::Fits(e) => format!("{}, CFITSIO status {}", e.message, e.status),
        other => other.to_string(),
    }
}
