//! The PSF filter: two separable passes over values and coverage at once. CPU twin: backend/cpu/filter.rs.

use bytemuck::{Pod, Zeroable};

use super::commands::Commands;
use super::kernel::{Access, Kernel};
use super::{GpuBackend, IMAGE_WORKGROUP};
use crate::pipeline::psf::PsfKernel;
use crate::{Error, Result};

pub(super) static FILTER_ROWS: Kernel = Kernel {
    name: "filter_rows",
    source: include_str!("../../../shaders/filter_rows.wgsl"),
    workgroup: IMAGE_WORKGROUP,
    params_bytes: size_of::<Params>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
    constants: &[],
};

pub(super) static FILTER_COLUMNS: Kernel = Kernel {
    name: "filter_columns",
    source: include_str!("../../../shaders/filter_columns.wgsl"),
    workgroup: IMAGE_WORKGROUP,
    params_bytes: size_of::<Params>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Write, Access::Write],
    constants: &[],
};

/// Widest filter on either side: the shader's `MOST_RADIUS`, twice what the widest PSF needs.
pub(super) const MOST_RADIUS: usize = 64;

/// Pixels below each other of one invocation of the second pass: the shader's `ROWS`.
pub(super) const ROWS_AT_ONCE: usize = 4;

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) radius: u32,
    pub(super) with_saturated: u32,
    pub(super) clip: f32,
}

impl GpuBackend {
    pub(super) fn convolve(&mut self, kernel: &PsfKernel, clip: f32, with_saturated: bool) -> Result<()> {
        if kernel.radius() > MOST_RADIUS {
            let what = "the radius of the PSF filter on a GPU (px)".to_owned();
            return Err(Error::Limit { what, requested: kernel.radius() as u64, allowed: MOST_RADIUS as u64 });
        }
        let squares: Vec<f32> = kernel.taps.iter().map(|t| t * t).collect();
        let sum: f32 = squares.iter().sum();
        let mut taps = kernel.taps.clone();
        taps.extend(squares.iter().map(|t| t / sum));
        self.small.upload(&self.context, &taps)?;
        let params = Params {
            width: self.width as u32,
            height: self.height as u32,
            radius: kernel.radius() as u32,
            with_saturated: with_saturated.into(),
            clip,
        };
        let [across, covered_across] = &self.scratch;
        let rows = [&self.small, &self.residual, &self.weight, across, covered_across];
        let columns = [&self.small, across, covered_across, &self.filtered, &self.coverage];
        let groups = self.image_groups(&FILTER_ROWS);
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        commands.dispatch(&FILTER_ROWS, &params, &rows, groups)?;
        let groups = [groups[0], self.height.div_ceil(ROWS_AT_ONCE) as u32, 1];
        commands.dispatch(&FILTER_COLUMNS, &params, &columns, groups)?;
        commands.submit()
    }
}
