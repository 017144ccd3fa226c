//! Compact sources: local maxima, walks outwards, and footprints weighed out. CPU twin: backend/cpu/compact.rs.

use bytemuck::{Pod, Zeroable};

use super::commands::Commands;
use super::kernel::{Access, Kernel};
use super::{GpuBackend, IMAGE_WORKGROUP};
use crate::Result;
use crate::backend::{MAX_WALK_PX, WALK_DIRECTIONS, walk_direction};
use crate::pipeline::weigh::{CompactSource, Footprint};

pub(super) static COMPACT: Kernel = Kernel {
    name: "compact",
    source: include_str!("../../../shaders/compact.wgsl"),
    workgroup: IMAGE_WORKGROUP,
    params_bytes: size_of::<Params>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Write],
    constants: &[],
};

pub(super) static HOT: Kernel = Kernel {
    name: "hot",
    source: include_str!("../../../shaders/hot.wgsl"),
    workgroup: IMAGE_WORKGROUP,
    params_bytes: size_of::<HotParams>(),
    buffers: &[Access::Read, Access::Write],
    constants: &[],
};

pub(super) static WEIGH: Kernel = Kernel {
    name: "weigh",
    source: include_str!("../../../shaders/weigh.wgsl"),
    workgroup: 64,
    params_bytes: size_of::<WeighParams>(),
    buffers: &[Access::Read, Access::Write],
    constants: &[],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) capacity: u32,
    pub(super) threshold: f32,
    pub(super) wing_level: f32,
    pub(super) max_walk: u32,
    pub(super) unused_1: u32,
    pub(super) unused_2: u32,
    pub(super) directions: [[f32; 2]; WALK_DIRECTIONS],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct HotParams {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) threshold: f32,
    pub(super) ratio: f32,
}

/// A source as the device reports it; reaches are one byte each.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceSource {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) peak: f32,
    pub(super) centre: f32,
    pub(super) saturated: u32,
    pub(super) core_reach: [u8; WALK_DIRECTIONS],
    pub(super) wing_reach: [u8; WALK_DIRECTIONS],
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct WeighParams {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) first: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceFootprint {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) radius: f32,
}

impl GpuBackend {
    pub(super) fn list_compact(&mut self, threshold: f32, wing_level: f32) -> Result<Vec<CompactSource>> {
        let groups = self.image_groups(&COMPACT);
        let found = self.sources.fill(&self.context, |list, capacity| {
            let params = Params {
                width: self.width as u32,
                height: self.height as u32,
                capacity,
                threshold,
                wing_level,
                max_walk: MAX_WALK_PX as u32,
                unused_1: 0,
                unused_2: 0,
                directions: std::array::from_fn(walk_direction),
            };
            let mut commands = Commands::new(&self.context, &mut self.recorder);
            let buffers = [&self.filtered, &self.residual, &self.weight, list];
            commands.dispatch(&COMPACT, &params, &buffers, groups)?;
            commands.submit()
        })?;
        let on_host = |s: DeviceSource| CompactSource {
            x: s.x,
            y: s.y,
            peak: s.peak,
            centre: s.centre,
            saturated: s.saturated != 0,
            core_reach: s.core_reach,
            wing_reach: s.wing_reach,
        };
        let mut sources: Vec<CompactSource> = found.into_iter().map(on_host).collect();
        sources.sort_unstable_by_key(|s| (s.y, s.x));
        Ok(sources)
    }

    pub(super) fn weigh_out_lone_pixels(&mut self, threshold: f32, ratio: f32) -> Result<()> {
        let groups = self.image_groups(&HOT);
        let params = HotParams { width: self.width as u32, height: self.height as u32, threshold, ratio };
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        commands.dispatch(&HOT, &params, &[&self.residual, &self.weight], groups)?;
        commands.submit()
    }

    pub(super) fn weigh_out_footprints(&mut self, footprints: &[Footprint]) -> Result<()> {
        let list: Vec<DeviceFootprint> =
            footprints.iter().map(|f| DeviceFootprint { x: f.x, y: f.y, radius: f.radius_px }).collect();
        self.small.upload(&self.context, &list)?;
        let at_once = self.context.max_groups() as usize;
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        for first in (0..list.len()).step_by(at_once) {
            let params = WeighParams { width: self.width as u32, height: self.height as u32, first: first as u32 };
            let n = (list.len() - first).min(at_once) as u32;
            commands.dispatch(&WEIGH, &params, &[&self.small, &self.weight], [n, 1, 1])?;
        }
        commands.submit()
    }
}
