//! Background: statistics of tiles, and the map evaluated at every pixel. CPU twin: backend/cpu/background.rs.

use bytemuck::{Pod, Zeroable};

use super::commands::Commands;
use super::kernel::{Access, Kernel};
use super::{GpuBackend, IMAGE_WORKGROUP};
use crate::Result;
use crate::backend::TileSource;
use crate::pipeline::background::{BackgroundMap, CLIP_SIGMAS, MAX_CLIP_ROUNDS, Mesh, TileStatistics};
use crate::pipeline::lines::Lines;

pub(super) static BACKGROUND: Kernel = Kernel {
    name: "background",
    source: include_str!("../../../shaders/background.wgsl"),
    // The shader's trees of sums need a power of two.
    workgroup: 128,
    params_bytes: size_of::<TileParams>(),
    buffers: &[Access::Read, Access::Read, Access::Write],
    constants: &[],
};

pub(super) static NORMALISE: Kernel = Kernel {
    name: "normalise",
    source: include_str!("../../../shaders/normalise.wgsl"),
    workgroup: IMAGE_WORKGROUP,
    params_bytes: size_of::<MapParams>(),
    buffers: &[Access::Read, Access::Read, Access::Write, Access::Write],
    constants: &[],
};

pub(super) static LINES: Kernel = Kernel {
    name: "lines",
    source: include_str!("../../../shaders/lines.wgsl"),
    workgroup: IMAGE_WORKGROUP,
    params_bytes: size_of::<LineParams>(),
    buffers: &[Access::Read, Access::Read, Access::Write, Access::Write],
    constants: &[],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct TileParams {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) nx: u32,
    pub(super) ny: u32,
    pub(super) most_px: u32,
    pub(super) half_of_rows: u32,
    pub(super) max_rounds: u32,
    pub(super) clip_sigmas: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceStatistics {
    pub(super) n_usable: u32,
    pub(super) n_clipped: u32,
    pub(super) mean: f32,
    pub(super) median: f32,
    pub(super) sd: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct MapParams {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) nx: u32,
    pub(super) ny: u32,
    pub(super) noise_floor: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct LineParams {
    pub(super) width: u32,
    pub(super) height: u32,
}

impl GpuBackend {
    pub(super) fn measure_tiles(&mut self, mesh: Mesh, source: TileSource) -> Result<Vec<TileStatistics>> {
        self.small.reserve::<DeviceStatistics>(&self.context, mesh.len())?;
        let image = match source {
            TileSource::Values => &self.residual,
            TileSource::Filtered => &self.filtered,
        };
        let params = TileParams {
            width: mesh.width as u32,
            height: mesh.height as u32,
            nx: mesh.nx as u32,
            ny: mesh.ny as u32,
            most_px: mesh.most_px as u32,
            half_of_rows: mesh.half_of_rows.into(),
            max_rounds: MAX_CLIP_ROUNDS as u32,
            clip_sigmas: CLIP_SIGMAS,
        };
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        let buffers = [image, &self.weight, &self.small];
        commands.dispatch(&BACKGROUND, &params, &buffers, [mesh.nx as u32, mesh.ny as u32, 1])?;
        commands.submit()?;
        let tiles: Vec<DeviceStatistics> = self.small.read(&self.context, mesh.len())?;
        let on_host = |t: DeviceStatistics| TileStatistics {
            n_usable: t.n_usable,
            n_clipped: t.n_clipped,
            mean: t.mean,
            median: t.median,
            sd: t.sd,
        };
        Ok(tiles.into_iter().map(on_host).collect())
    }

    pub(super) fn subtract_background(&mut self, map: &BackgroundMap) -> Result<()> {
        let groups = self.image_groups(&NORMALISE);
        let [level, noise] = &mut self.lists;
        level.upload(&self.context, &map.level)?;
        noise.upload(&self.context, &map.noise)?;
        let params = MapParams {
            width: self.width as u32,
            height: self.height as u32,
            nx: map.mesh.nx as u32,
            ny: map.mesh.ny as u32,
            noise_floor: map.noise_floor,
        };
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        let buffers = [&*level, &*noise, &self.residual, &self.weight];
        commands.dispatch(&NORMALISE, &params, &buffers, groups)?;
        commands.submit()
    }

    pub(super) fn subtract_lines(&mut self, lines: &Lines) -> Result<()> {
        let groups = self.image_groups(&LINES);
        let [offsets, factors] = &mut self.lists;
        offsets.upload(&self.context, &lines.offsets)?;
        factors.upload(&self.context, &lines.factors)?;
        let params = LineParams { width: self.width as u32, height: self.height as u32 };
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        let buffers = [&*offsets, &*factors, &self.residual, &self.weight];
        commands.dispatch(&LINES, &params, &buffers, groups)?;
        commands.submit()
    }
}
