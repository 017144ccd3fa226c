//! A frame: raw pixels as the sensor gave them, and what is known about them.

use std::borrow::Cow;

use crate::{Error, Result};

/// Raw pixels, borrowed or owned, row after row.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Pixels<'a> {
    /// Unsigned 8 bits.
    U8(Cow<'a, [u8]>),
    /// Unsigned 16 bits.
    U16(Cow<'a, [u16]>),
    /// Signed 16 bits.
    I16(Cow<'a, [i16]>),
    /// Signed 32 bits.
    I32(Cow<'a, [i32]>),
    /// Single precision; NaN and infinities are missing pixels.
    F32(Cow<'a, [f32]>),
}

impl Pixels<'_> {
    /// Number of pixels.
    #[must_use]
    pub fn len(&self) -> usize {
        match self {
            Self::U8(p) => p.len(),
            Self::U16(p) => p.len(),
            Self::I16(p) => p.len(),
            Self::I32(p) => p.len(),
            Self::F32(p) => p.len(),
        }
    }

    /// True when there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// One pixel as a number.
    #[must_use]
    pub fn value(&self, index: usize) -> f32 {
        match self {
            Self::U8(p) => f32::from(p[index]),
            Self::U16(p) => f32::from(p[index]),
            Self::I16(p) => f32::from(p[index]),
            Self::I32(p) => p[index] as f32,
            Self::F32(p) => p[index],
        }
    }

    fn bytes(&self) -> u64 {
        let each = match self {
            Self::U8(_) => 1,
            Self::U16(_) | Self::I16(_) => 2,
            Self::I32(_) | Self::F32(_) => 4,
        };
        (self.len() * each) as u64
    }

    fn as_borrowed(&self) -> Pixels<'_> {
        match self {
            Self::U8(p) => Pixels::U8(Cow::Borrowed(p)),
            Self::U16(p) => Pixels::U16(Cow::Borrowed(p)),
            Self::I16(p) => Pixels::I16(Cow::Borrowed(p)),
            Self::I32(p) => Pixels::I32(Cow::Borrowed(p)),
            Self::F32(p) => Pixels::F32(Cow::Borrowed(p)),
        }
    }

    fn into_owned(self) -> Pixels<'static> {
        match self {
            Self::U8(p) => Pixels::U8(Cow::Owned(p.into_owned())),
            Self::U16(p) => Pixels::U16(Cow::Owned(p.into_owned())),
            Self::I16(p) => Pixels::I16(Cow::Owned(p.into_owned())),
            Self::I32(p) => Pixels::I32(Cow::Owned(p.into_owned())),
            Self::F32(p) => Pixels::F32(Cow::Owned(p.into_owned())),
        }
    }
}

macro_rules! pixels_from {
    ($($type:ty => $variant:ident),*) => {$(
        impl<'a> From<&'a [$type]> for Pixels<'a> {
            fn from(pixels: &'a [$type]) -> Self {
                Pixels::$variant(Cow::Borrowed(pixels))
            }
        }
        impl<'a> From<&'a Vec<$type>> for Pixels<'a> {
            fn from(pixels: &'a Vec<$type>) -> Self {
                Pixels::$variant(Cow::Borrowed(pixels))
            }
        }
        impl From<Vec<$type>> for Pixels<'_> {
            fn from(pixels: Vec<$type>) -> Self {
                Pixels::$variant(Cow::Owned(pixels))
            }
        }
    )*};
}

pixels_from!(u8 => U8, u16 => U16, i16 => I16, i32 => I32, f32 => F32);

/// One raw frame: pixels `[height, width]` in row-major order, and what is known about them.
///
/// ```
/// use skystreak::Frame;
///
/// let raw = vec![100_u16; 64 * 48];
/// let frame = Frame::new(&raw, 64, 48)?.with_gain(1.5)?.with_saturation(65_000.0);
/// assert_eq!((frame.width(), frame.height()), (64, 48));
/// # Ok::<(), skystreak::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Frame<'a> {
    width: usize,
    height: usize,
    pixels: Pixels<'a>,
    mask: Option<Cow<'a, [bool]>>,
    gain_e_per_adu: Option<f64>,
    read_noise_e: Option<f64>,
    saturation: Option<f64>,
    blank: Option<i32>,
    exposure_secs: Option<f64>,
    times: Option<Times>,
}

/// Start, middle and end of the exposure, those that are given, and the rule that fixes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    /// UTC, ISO 8601.
    pub start_utc: Option<String>,
    /// UTC, ISO 8601.
    pub middle_utc: Option<String>,
    /// UTC, ISO 8601.
    pub end_utc: Option<String>,
    /// Which keywords gave them, such as `"DATE-OBS + EXPTIME"`.
    pub rule: String,
}

/// Largest side of a frame, px: coordinates have to stay exact to a thousandth of a pixel in single precision.
pub const MAX_SIDE_PX: usize = 16_384;

impl<'a> Frame<'a> {
    /// A frame of `width` by `height` pixels from a slice (borrowed) or a vector (owned).
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when a side is zero or the number of pixels is not `width * height`,
    /// [`Error::Limit`] when a side is longer than [`MAX_SIDE_PX`].
    pub fn new(pixels: impl Into<Pixels<'a>>, width: usize, height: usize) -> Result<Self> {
        let pixels = pixels.into();
        if width == 0 || height == 0 {
            return Err(Error::Input(format!("a frame of {width} x {height} (width x height) has no pixels")));
        }
        if width.max(height) > MAX_SIDE_PX {
            return Err(Error::Limit {
                what: format!("the longer side of a {width} x {height} frame (pixels)"),
                requested: width.max(height) as u64,
                allowed: MAX_SIDE_PX as u64,
            });
        }
        if pixels.len() != width * height {
            return Err(Error::Input(format!(
                "{} pixels given, a frame of {width} x {height} (width x height) needs {}",
                pixels.len(),
                width * height
            )));
        }
        Ok(Self {
            width,
            height,
            pixels,
            mask: None,
            gain_e_per_adu: None,
            read_noise_e: None,
            saturation: None,
            blank: None,
            exposure_secs: None,
            times: None,
        })
    }

    /// Leaves out every pixel where the mask is true.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when the mask does not have one value per pixel.
    pub fn with_mask(mut self, mask: impl Into<Cow<'a, [bool]>>) -> Result<Self> {
        let mask = mask.into();
        if mask.len() != self.pixels.len() {
            return Err(Error::Input(format!(
                "the mask has {} values, the frame of {} x {} (width x height) has {} pixels",
                mask.len(),
                self.width,
                self.height,
                self.pixels.len()
            )));
        }
        self.mask = Some(mask);
        Ok(self)
    }

    /// Electrons per ADU. With it fluxes are electrons and the source's own photons count as noise.
    ///
    /// # Errors
    ///
    /// [`Error::Input`] when the gain is not positive and finite. Leave it away when it is not known.
    pub fn with_gain(mut self, electrons_per_adu: f64) -> Result<Self> {
        if !(electrons_per_adu > 0.0 && electrons_per_adu.is_finite()) {
            return Err(Error::Input(format!("a gain of {electrons_per_adu} e-/ADU: it must be positive and finite")));
        }
        self.gain_e_per_adu = Some(electrons_per_adu);
        Ok(self)
    }

    /// Read noise, electrons. Informative: the noise itself is measured from the frame.
    #[must_use]
    pub fn with_read_noise(mut self, electrons: f64) -> Self {
        self.read_noise_e = Some(electrons);
        self
    }

    /// Pixels at or above this value (ADU) are saturated and left out; without it those of [`saturates_at`](Self::saturates_at).
    #[must_use]
    pub fn with_saturation(mut self, adu: f64) -> Self {
        self.saturation = Some(adu);
        self
    }

    /// Integer pixels of exactly this value are missing (FITS `BLANK`).
    #[must_use]
    pub fn with_blank(mut self, value: i32) -> Self {
        self.blank = Some(value);
        self
    }

    /// Exposure time, s.
    #[must_use]
    pub fn with_exposure(mut self, seconds: f64) -> Self {
        self.exposure_secs = Some(seconds);
        self
    }

    /// When the shutter was open.
    #[must_use]
    pub fn with_times(mut self, times: Times) -> Self {
        self.times = Some(times);
        self
    }

    /// Pixels along a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    /// The raw pixels.
    #[must_use]
    pub fn pixels(&self) -> &Pixels<'a> {
        &self.pixels
    }

    /// True where a pixel is to be left out; none when all pixels count.
    #[must_use]
    pub fn mask(&self) -> Option<&[bool]> {
        self.mask.as_deref()
    }

    /// Electrons per ADU, when known.
    #[must_use]
    pub fn gain_e_per_adu(&self) -> Option<f64> {
        self.gain_e_per_adu
    }

    /// Read noise in electrons, when known.
    #[must_use]
    pub fn read_noise_e(&self) -> Option<f64> {
        self.read_noise_e
    }

    /// Saturation level in ADU, when given.
    #[must_use]
    pub fn saturation(&self) -> Option<f64> {
        self.saturation
    }

    /// The level from which pixels are taken for saturated, ADU: the one given, or else the largest value that 8 or 16
    /// bits hold. Wider pixels have no such limit.
    #[must_use]
    pub fn saturates_at(&self) -> Option<f64> {
        let largest = match &self.pixels {
            Pixels::U8(_) => Some(f64::from(u8::MAX)),
            Pixels::U16(_) => Some(f64::from(u16::MAX)),
            Pixels::I16(_) => Some(f64::from(i16::MAX)),
            Pixels::I32(_) | Pixels::F32(_) => None,
        };
        self.saturation.or(largest)
    }

    /// Value of missing integer pixels, when there is one.
    #[must_use]
    pub fn blank(&self) -> Option<i32> {
        self.blank
    }

    /// Exposure time in seconds, when known.
    #[must_use]
    pub fn exposure_secs(&self) -> Option<f64> {
        self.exposure_secs
    }

    /// When the shutter was open, when known.
    #[must_use]
    pub fn times(&self) -> Option<&Times> {
        self.times.as_ref()
    }

    /// The value (ADU) of a pixel, or none where it is masked, saturated, BLANK or not finite.
    ///
    /// This is the definition of a usable pixel; both backends follow it.
    #[must_use]
    pub fn usable_value(&self, index: usize) -> Option<f32> {
        let value = self.pixels.value(index);
        let masked = self.mask.as_ref().is_some_and(|m| m[index]);
        let saturated = self.saturates_at().is_some_and(|s| value >= s as f32);
        let blank = self.blank.is_some_and(|b| self.is_blank(index, b));
        (value.is_finite() && !masked && !saturated && !blank).then_some(value)
    }

    pub(crate) fn is_blank(&self, index: usize, blank: i32) -> bool {
        match &self.pixels {
            Pixels::U8(p) => i32::from(p[index]) == blank,
            Pixels::U16(p) => i32::from(p[index]) == blank,
            Pixels::I16(p) => i32::from(p[index]) == blank,
            Pixels::I32(p) => p[index] == blank,
            Pixels::F32(_) => false,
        }
    }

    /// What is known of it, with other pixels of the same number.
    pub(crate) fn with_pixels<'b>(self, pixels: impl Into<Pixels<'b>>) -> Frame<'b>
    where
        'a: 'b,
    {
        Frame { pixels: pixels.into(), ..self }
    }

    /// The same frame, its pixels and mask borrowed from this one: nothing is copied.
    ///
    /// ```
    /// use skystreak::Frame;
    ///
    /// let frame = Frame::new(vec![1_u16, 2], 2, 1)?.with_gain(1.4)?;
    /// assert_eq!(frame.as_borrowed(), frame);
    /// # Ok::<(), skystreak::Error>(())
    /// ```
    #[must_use]
    pub fn as_borrowed(&self) -> Frame<'_> {
        Frame {
            pixels: self.pixels.as_borrowed(),
            mask: self.mask().map(Cow::Borrowed),
            times: self.times.clone(),
            ..*self
        }
    }

    /// Memory of its pixels and mask.
    pub(crate) fn bytes(&self) -> u64 {
        self.pixels.bytes() + self.mask().map_or(0, |m| size_of_val(m) as u64)
    }

    /// The same frame, owning its pixels and mask.
    #[must_use]
    pub fn into_owned(self) -> Frame<'static> {
        Frame {
            pixels: self.pixels.into_owned(),
            mask: self.mask.map(|m| Cow::Owned(m.into_owned())),
            ..Frame {
                width: self.width,
                height: self.height,
                pixels: Pixels::U8(Cow::Borrowed(&[])),
                mask: None,
                gain_e_per_adu: self.gain_e_per_adu,
                read_noise_e: self.read_noise_e,
                saturation: self.saturation,
                blank: self.blank,
                exposure_secs: self.exposure_secs,
                times: self.times,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejects_wrong_shapes() {
        assert!(Frame::new(vec![0_u8; 6], 0, 6).is_err());
        assert!(Frame::new(vec![0_u8; 6], 2, 2).is_err());
        let frame = Frame::new(vec![0_u8; 6], 2, 3).unwrap();
        assert!(frame.clone().with_mask(vec![false; 5]).is_err());
        assert!(frame.with_gain(0.0).is_err());
        let too_long = Frame::new(vec![0_u8; MAX_SIDE_PX + 1], MAX_SIDE_PX + 1, 1);
        assert!(matches!(too_long, Err(Error::Limit { .. })));
    }

    #[test]
    fn usable_pixels() {
        let frame = Frame::new(vec![1_i16, -32768, 900, 5], 4, 1)
            .unwrap()
            .with_blank(-32768)
            .with_saturation(900.0)
            .with_mask(vec![false, false, false, true])
            .unwrap();
        let usable: Vec<_> = (0..4).map(|i| frame.usable_value(i)).collect();
        assert_eq!(usable, [Some(1.0), None, None, None]);
        let full = Frame::new(vec![255_u8, 254], 2, 1).unwrap();
        assert_eq!([full.usable_value(0), full.usable_value(1)], [None, Some(254.0)], "all that 8 bits hold");
        let frame = Frame::new(vec![f32::NAN, f32::INFINITY, 2.0], 3, 1).unwrap();
        let usable: Vec<_> = (0..3).map(|i| frame.usable_value(i)).collect();
        assert_eq!(usable, [None, None, Some(2.0)]);
    }
}
