//! The trailed PSF: trails made ready for the device, and added to the residual image. CPU twins: backend/cpu/model.rs, trail.rs.

use bytemuck::{Pod, Zeroable};

use super::GpuBackend;
use super::commands::Commands;
use super::kernel::{Access, Kernel};
use crate::Result;
use crate::backend::{POINT_LENGTH_PX, trail_reach_px};
use crate::pipeline::measure::{StampWalk, Trail};

pub(super) static TRAIL: Kernel = Kernel {
    name: "trail",
    source: concat!(include_str!("../../../shaders/shared/trail.wgsl"), include_str!("../../../shaders/trail.wgsl")),
    workgroup: 64,
    params_bytes: size_of::<Params>(),
    buffers: &[Access::Read, Access::Read, Access::Write],
    constants: &[],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) trail: u32,
    pub(super) factor: f32,
}

/// The pixels of a trail, and the pixel its coordinates are relative to.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceWalk {
    pub(super) along_x: u32,
    pub(super) first: i32,
    pub(super) steps: u32,
    pub(super) half_width: i32,
    pub(super) first_centre: u32,
    pub(super) origin_x: i32,
    pub(super) origin_y: i32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceModel {
    pub(super) x1: f32,
    pub(super) y1: f32,
    pub(super) c: f32,
    pub(super) s: f32,
    pub(super) length: f32,
    pub(super) sigma: f32,
    pub(super) density: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceTrail {
    pub(super) walk: DeviceWalk,
    pub(super) model: DeviceModel,
}

impl DeviceTrail {
    /// Makes a trail ready, and appends the centres of its walk to those of the others.
    pub(super) fn new(trail: &Trail, reach_px: f64, width: usize, height: usize, centres: &mut Vec<i32>) -> Self {
        let walk = StampWalk::new(&trail.segment, reach_px, width, height);
        let middle = trail.segment.midpoint();
        let (origin_x, origin_y) = (middle.x.round(), middle.y.round());
        let (c, s) = trail.segment.direction();
        let length = trail.segment.length_px() as f32;
        let flux = trail.flux as f32;
        let first_centre = centres.len() as u32;
        centres.extend((0..walk.steps).map(|step| walk.centre(step) as i32));
        Self {
            walk: DeviceWalk {
                along_x: walk.along_x.into(),
                first: walk.first as i32,
                steps: walk.steps as u32,
                half_width: walk.half_width as i32,
                first_centre,
                origin_x: origin_x as i32,
                origin_y: origin_y as i32,
            },
            model: DeviceModel {
                x1: (trail.segment.start.x - origin_x) as f32,
                y1: (trail.segment.start.y - origin_y) as f32,
                c: c as f32,
                s: s as f32,
                length,
                sigma: trail.sigma_eff_px as f32,
                density: if length < POINT_LENGTH_PX { flux } else { flux / length },
            },
        }
    }
}

impl GpuBackend {
    pub(super) fn add_models(&mut self, trails: &[Trail], factor: f32) -> Result<()> {
        let mut centres = Vec::new();
        let list: Vec<DeviceTrail> = trails
            .iter()
            .map(|t| DeviceTrail::new(t, trail_reach_px(t), self.width, self.height, &mut centres))
            .collect();
        let [trail_list, centre_list] = &mut self.lists;
        trail_list.upload(&self.context, &list)?;
        centre_list.upload(&self.context, &centres)?;
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        for (i, trail) in list.iter().enumerate() {
            let params = Params { width: self.width as u32, height: self.height as u32, trail: i as u32, factor };
            let across = 2 * trail.walk.half_width + 1;
            let groups = [TRAIL.groups(trail.walk.steps as usize), across as u32, 1];
            commands.dispatch(&TRAIL, &params, &[&*trail_list, &*centre_list, &self.residual], groups)?;
        }
        commands.submit()
    }
}
