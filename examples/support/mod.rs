//! What `detect` and `stream` share: options, and words.

use clap::Args;
use skystreak::{DetectorConfig, Device, Frame, Result, Tracking};

/// How to detect.
#[derive(Args)]
pub(crate) struct DetectorOptions {
    /// auto, cpu, gpu, or an adapter by (part of) its name.
    #[arg(long, default_value = "auto")]
    device: Device,
    /// Gaussian width of the PSF, px, from 0.3 to 8; measured on each frame's stars when not given.
    #[arg(long, value_name = "PX")]
    sigma: Option<f64>,
    /// False alarms to expect per frame, from 1e-6 to 100 [default: 0.01].
    #[arg(long, value_name = "N")]
    false_alarms: Option<f64>,
    /// auto, sidereal, or rate: length and angle of the star trails as rate:LENGTH_PX,ANGLE_DEG.
    #[arg(long, default_value = "auto")]
    tracking: Tracking,
}

impl DetectorOptions {
    pub(crate) fn config(&self) -> DetectorConfig {
        let mut config = DetectorConfig {
            device: self.device.clone(),
            psf_sigma_px: self.sigma,
            tracking: self.tracking,
            ..DetectorConfig::default()
        };
        if let Some(n) = self.false_alarms {
            config.false_alarms_per_frame = n;
        }
        config
    }
}

/// What a file's header may not say.
#[derive(Args)]
pub(crate) struct HeaderOptions {
    /// Saturation level, ADU, where the header does not say it.
    #[arg(long, value_name = "ADU", value_parser = above_zero)]
    saturation: Option<f64>,
    /// Gain, electrons per ADU, where the header does not say it.
    #[arg(long, value_name = "E_PER_ADU", value_parser = above_zero)]
    gain: Option<f64>,
}

impl HeaderOptions {
    pub(crate) fn fill_in(&self, mut frame: Frame<'static>) -> Result<Frame<'static>> {
        if let (None, Some(level)) = (frame.saturation(), self.saturation) {
            frame = frame.with_saturation(level);
        }
        match (frame.gain_e_per_adu(), self.gain) {
            (None, Some(gain)) => frame.with_gain(gain),
            _ => Ok(frame),
        }
    }
}

fn above_zero(text: &str) -> std::result::Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("{text} is no number"))?;
    if value > 0.0 { Ok(value) } else { Err("has to be above 0".to_owned()) }
}

pub(crate) fn counted(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}
