//! What a FITS header says about the frame.

use std::ops::RangeInclusive;

use fitsio::FitsFile;
use fitsio::hdu::FitsHdu;

use crate::{Frame, Result, Times};

/// Largest `GAIN` taken for electrons per ADU: beyond it the key is a setting of the camera.
const MAX_GAIN_E_PER_ADU: f64 = 100.0;

/// About how many pixels are looked at for the median.
const MEDIAN_SAMPLE: usize = 10_000;

/// The keys of an image's HDU, and behind them those of the primary one.
pub(super) struct Header<'f> {
    file: &'f mut FitsFile,
    image: &'f FitsHdu,
    primary: Option<FitsHdu>,
}

impl<'f> Header<'f> {
    pub(super) fn new(file: &'f mut FitsFile, image: &'f FitsHdu) -> Self {
        let primary = if image.number == 0 { None } else { file.primary_hdu().ok() };
        Self { file, image, primary }
    }

    /// Adds to a frame what the keys tell.
    pub(super) fn describe(mut self, mut frame: Frame<'static>) -> Result<Frame<'static>> {
        if let Some(gain) = self.gain() {
            frame = frame.with_gain(gain)?;
        }
        if let Some((_, electrons)) = self.number(&["RDNOISE", "READNOIS", "READNOISE"], |v| v > 0.0) {
            frame = frame.with_read_noise(electrons);
        }
        let median = sampled_median(&frame);
        if let Some((_, adu)) = self.number(&["SATURATE", "DATAMAX"], |v| v > 0.0 && f64::from(median) <= v) {
            frame = frame.with_saturation(adu);
        }
        let exposure = self.number(&["EXPTIME", "EXPOSURE", "XPOSURE"], |v| v >= 0.0);
        if let Some((_, seconds)) = exposure {
            frame = frame.with_exposure(seconds);
        }
        if let Some(times) = self.times(exposure.map(|(name, _)| name)) {
            frame = frame.with_times(times);
        }
        Ok(frame)
    }

    fn gain(&mut self) -> Option<f64> {
        self.number(&["EGAIN"], |v| v > 0.0)
            .or_else(|| self.number(&["GAIN"], |v| v > 0.0 && v <= MAX_GAIN_E_PER_ADU))
            .map(|(_, gain)| gain)
    }

    /// None also where the clock is not UTC: its offset is not ours to know.
    fn times(&mut self, exposure_key: Option<&str>) -> Option<Times> {
        let clock = self.text("TIMESYS").unwrap_or_else(|| "UTC".into());
        if !["UTC", "UT"].contains(&clock.to_ascii_uppercase().as_str()) {
            return None;
        }
        let is_moment = |found: &(_, String)| is_iso_8601(&found.1);
        let start = self.first_text(&["DATE-BEG"]).filter(is_moment).or_else(|| self.date_obs().filter(is_moment));
        let middle = self.first_text(&["DATE-AVG"]).filter(is_moment);
        let end = self.first_text(&["DATE-END"]).filter(is_moment);
        let used: Vec<_> = [&start, &middle, &end].into_iter().flatten().map(|(rule, _)| *rule).collect();
        let mut rule = used.join(", ");
        if let (1, true, Some(key)) = (used.len(), start.is_some(), exposure_key) {
            rule = format!("{rule} + {key}");
        }
        let value = |found: Option<(_, String)>| found.map(|(_, value)| value);
        (!used.is_empty()).then(|| Times {
            start_utc: value(start),
            middle_utc: value(middle),
            end_utc: value(end),
            rule,
        })
    }

    /// `DATE-OBS`, with the time of day from `TIME-OBS` where it has only the date.
    fn date_obs(&mut self) -> Option<(&'static str, String)> {
        let date = self.text("DATE-OBS")?;
        if date.contains('T') {
            return Some(("DATE-OBS", date));
        }
        Some(match self.text("TIME-OBS") {
            Some(time) => ("DATE-OBS and TIME-OBS", format!("{date}T{time}")),
            None => ("DATE-OBS", date),
        })
    }

    /// The first of several keys that holds a finite number fit to be used.
    fn number(&mut self, names: &[&'static str], is_fit: impl Fn(f64) -> bool) -> Option<(&'static str, f64)> {
        names.iter().find_map(|&name| {
            let value = self.find(|hdu, file| hdu.read_key::<f64>(file, name).ok())?;
            (value.is_finite() && is_fit(value)).then_some((name, value))
        })
    }

    fn first_text(&mut self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|&name| Some((name, self.text(name)?)))
    }

    fn text(&mut self, name: &str) -> Option<String> {
        let value = self.find(|hdu, file| hdu.read_key::<String>(file, name).ok())?;
        let value = value.trim();
        (!value.is_empty()).then(|| value.to_owned())
    }

    fn find<T>(&mut self, read: impl Fn(&FitsHdu, &mut FitsFile) -> Option<T>) -> Option<T> {
        read(self.image, self.file).or_else(|| read(self.primary.as_ref()?, self.file))
    }
}

/// Median of some pixels spread over the frame; minus infinity when none of them is a number.
fn sampled_median(frame: &Frame<'_>) -> f32 {
    let n = frame.pixels().len();
    // An odd step does not stay on the columns of a frame whose width is a power of two.
    let step = (n / MEDIAN_SAMPLE) | 1;
    let mut sample: Vec<f32> = (0..n).step_by(step).filter_map(|index| frame.usable_value(index)).collect();
    if sample.is_empty() {
        return f32::NEG_INFINITY;
    }
    let middle = sample.len() / 2;
    *sample.select_nth_unstable_by(middle, f32::total_cmp).1
}

/// True for `YYYY-MM-DD`, with `Thh:mm:ss` and decimals or without: what the FITS standard writes. Older files have
/// years of two digits, and what software has made of them.
fn is_iso_8601(text: &str) -> bool {
    let (date, time) = text.split_once('T').map_or((text, None), |(date, time)| (date, Some(time)));
    let within = |part: &str, digits: usize, range: RangeInclusive<u32>| {
        part.len() == digits
            && part.bytes().all(|b| b.is_ascii_digit())
            && part.parse().is_ok_and(|n: u32| range.contains(&n))
    };
    let is_date = match date.split('-').collect::<Vec<_>>()[..] {
        [year, month, day] => within(year, 4, 1..=9999) && within(month, 2, 1..=12) && within(day, 2, 1..=31),
        _ => false,
    };
    let is_time = |time: &str| {
        let time = time.trim_end_matches('Z');
        let (whole, decimals) = time.split_once('.').unwrap_or((time, ""));
        let is_whole = match whole.split(':').collect::<Vec<_>>()[..] {
            [h, m, s] => within(h, 2, 0..=24) && within(m, 2, 0..=59) && within(s, 2, 0..=60),
            _ => false,
        };
        is_whole && decimals.bytes().all(|b| b.is_ascii_digit())
    };
    is_date && time.is_none_or(is_time)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_moments_are_times() {
        for good in ["2026-11-24", "2026-11-24T12:39:00", "1999-01-31T23:59:60.125", "2026-11-24T12:39:00.5Z"] {
            assert!(is_iso_8601(good), "{good}");
        }
        let bad = ["26/10/92", "26/07/102T19:36:37", "2026-13-01", "2026-11-24T25:00:00", "2026-11-24T12:39", "", "T"];
        for bad in bad {
            assert!(!is_iso_8601(bad), "{bad}");
        }
    }
}
