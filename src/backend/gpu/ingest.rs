//! Ingest: raw pixels go up as they are, and become values and weights there. CPU twin: backend/cpu/ingest.rs.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::commands::Commands;
use super::kernel::{Access, Buffer, Kernel};
use super::{GpuBackend, IMAGE_WORKGROUP};
use crate::Result;
use crate::frame::{Frame, Pixels};

pub(super) static INGEST: Kernel = Kernel {
    name: "ingest",
    source: include_str!("../../../shaders/ingest.wgsl"),
    workgroup: IMAGE_WORKGROUP,
    params_bytes: size_of::<Params>(),
    buffers: &[Access::Read, Access::Read, Access::Write, Access::Write],
    constants: &[],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub(super) width: u32,
    pub(super) format: u32,
    pub(super) has_mask: u32,
    pub(super) has_saturation: u32,
    pub(super) saturation: f32,
    pub(super) has_blank: u32,
    pub(super) blank: i32,
}

/// What only this stage needs.
#[derive(Debug)]
pub(super) struct RawBuffers {
    pixels: Buffer,
    mask: Buffer,
}

impl RawBuffers {
    pub(super) fn new(context: &super::Context) -> Result<Self> {
        Ok(Self { pixels: Buffer::new(context, "raw pixel")?, mask: Buffer::new(context, "mask")? })
    }
}

impl GpuBackend {
    pub(super) fn convert(&mut self, frame: &Frame<'_>) -> Result<()> {
        let groups = self.image_groups(&INGEST);
        let raw = &mut self.raw;
        let format = match frame.pixels() {
            Pixels::U8(p) => raw.pixels.upload(&self.context, p).map(|()| 0),
            Pixels::U16(p) => raw.pixels.upload(&self.context, p).map(|()| 1),
            Pixels::I16(p) => raw.pixels.upload(&self.context, p).map(|()| 2),
            Pixels::I32(p) => raw.pixels.upload(&self.context, p).map(|()| 3),
            Pixels::F32(p) => raw.pixels.upload(&self.context, p).map(|()| 4),
        }?;
        if let Some(mask) = frame.mask() {
            raw.mask.upload(&self.context, &bits(mask))?;
        }
        // No value reaches an infinite or undefined level; the device shall not meet such numbers.
        let saturation = frame.saturates_at().map(|s| s as f32).filter(|s| *s < f32::INFINITY);
        let params = Params {
            width: self.width as u32,
            format,
            has_mask: frame.mask().is_some().into(),
            has_saturation: saturation.is_some().into(),
            saturation: saturation.unwrap_or(0.0).max(f32::MIN),
            has_blank: frame.blank().is_some().into(),
            blank: frame.blank().unwrap_or(0),
        };
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        let buffers = [&raw.pixels, &raw.mask, &self.residual, &self.weight];
        commands.dispatch(&INGEST, &params, &buffers, groups)?;
        commands.submit()
    }
}

/// 32 flags a word, the first in the lowest bit.
fn bits(flags: &[bool]) -> Vec<u32> {
    flags.par_chunks(32).map(|c| c.iter().rev().fold(0, |word, flag| word << 1 | u32::from(*flag))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_become_bits() {
        let flags: Vec<bool> = (0..40).map(|i| i % 3 == 0).collect();
        let words = bits(&flags);
        assert_eq!(words.len(), 2);
        assert!((0..40).all(|i| (words[i / 32] >> (i % 32) & 1 == 1) == flags[i]));
    }
}
