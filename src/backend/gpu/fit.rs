//! Damped least squares of the trailed PSF, whole fits on the device. CPU twin: backend/cpu/fit.rs.

use bytemuck::{Pod, Zeroable};

use super::GpuBackend;
use super::commands::Commands;
use super::kernel::{Access, Kernel};
use super::trail::{DeviceModel, DeviceTrail, DeviceWalk};
use crate::Result;
use crate::geometry::{Point, Segment};
use crate::pipeline::measure::{
    BEYOND_BORDER_WIDTHS, FitRequest, FitSettings, MOST_STOP_DAMPING, N_TRIANGLE, STOP_DELTA_CHI2, Shape, Trail,
    TrailFit,
};

pub(super) static FIT: Kernel = Kernel {
    name: "fit",
    source: concat!(include_str!("../../../shaders/shared/trail.wgsl"), include_str!("../../../shaders/fit.wgsl")),
    // 52 sums of each invocation fit into 16 KiB.
    workgroup: 64,
    params_bytes: size_of::<Params>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
    constants: &[("AT_ONCE", 13.0)],
};

/// The same for stamps of many pixels, whose invocations put their sums together in turns.
pub(super) static FIT_LARGE: Kernel =
    Kernel { name: "fit_large", workgroup: 256, constants: &[("AT_ONCE", 3.0)], ..FIT };

/// Pixels of a stamp from which it is large. What others are fitted in the same call must not matter: sums of another
/// order round otherwise.
const LARGE_STAMP: u32 = 1 << 10;

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) first: u32,
    pub(super) max_iterations: u32,
    pub(super) free: u32,
    pub(super) is_point: u32,
    pub(super) reach: f32,
    pub(super) photon_variance: f32,
    pub(super) least_sigma: f32,
    pub(super) most_sigma: f32,
    pub(super) stop_delta_chi2: f32,
    pub(super) most_stop_damping: f32,
    pub(super) clip_sigmas: f32,
    pub(super) beyond_border: f32,
    pub(super) expected_sigma: f32,
    pub(super) sigma_weight: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceRequest {
    pub(super) walk: DeviceWalk,
    pub(super) start: DeviceModel,
    pub(super) x2: f32,
    pub(super) y2: f32,
    pub(super) background: f32,
    pub(super) subtracted: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceState {
    pub(super) x1: f32,
    pub(super) y1: f32,
    pub(super) x2: f32,
    pub(super) y2: f32,
    pub(super) flux: f32,
    pub(super) background: f32,
    pub(super) sigma: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceFit {
    pub(super) state: DeviceState,
    pub(super) chi2: f32,
    pub(super) power: f32,
    pub(super) n_pixels: f32,
    pub(super) iterations: u32,
    pub(super) converged: u32,
    pub(super) end_coverage: [f32; 2],
    pub(super) information: [f32; N_TRIANGLE],
}

impl GpuBackend {
    pub(super) fn fit_trails(&mut self, requests: &[FitRequest], settings: &FitSettings) -> Result<Vec<TrailFit>> {
        let mut centres = Vec::new();
        let made_ready: Vec<DeviceRequest> = requests
            .iter()
            .map(|request| {
                let trail = &request.start;
                let DeviceTrail { walk, model } =
                    DeviceTrail::new(trail, settings.reach_px, self.width, self.height, &mut centres);
                DeviceRequest {
                    x2: (trail.segment.end.x - f64::from(walk.origin_x)) as f32,
                    y2: (trail.segment.end.y - f64::from(walk.origin_y)) as f32,
                    background: trail.background as f32,
                    subtracted: request.subtracted.into(),
                    walk,
                    start: model,
                }
            })
            .collect();
        let is_large = |r: &DeviceRequest| r.walk.steps * (2 * r.walk.half_width as u32 + 1) >= LARGE_STAMP;
        let (large, small): (Vec<usize>, Vec<usize>) = (0..requests.len()).partition(|i| is_large(&made_ready[*i]));
        let order: Vec<usize> = small.iter().chain(&large).copied().collect();
        let device_requests: Vec<DeviceRequest> = order.iter().map(|i| made_ready[*i]).collect();
        let [request_list, centre_list] = &mut self.lists;
        request_list.upload(&self.context, &device_requests)?;
        centre_list.upload(&self.context, &centres)?;
        self.small.reserve::<DeviceFit>(&self.context, requests.len())?;

        let buffers = [&self.residual, &self.weight, &*request_list, &*centre_list, &self.small];
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        let at_once = self.context.max_groups() as usize;
        for (kernel, range) in [(&FIT, 0..small.len()), (&FIT_LARGE, small.len()..requests.len())] {
            for first in range.clone().step_by(at_once) {
                let params = params_of(settings, self.width, self.height, first);
                let n = (range.end - first).min(at_once) as u32;
                commands.dispatch(kernel, &params, &buffers, [n, 1, 1])?;
            }
        }
        commands.submit()?;
        let fits: Vec<DeviceFit> = self.small.read(&self.context, requests.len())?;
        let mut in_order: Vec<(usize, TrailFit)> =
            order.iter().zip(&fits).map(|(i, fit)| (*i, on_host(fit, &made_ready[*i].walk))).collect();
        in_order.sort_unstable_by_key(|(i, _)| *i);
        Ok(in_order.into_iter().map(|(_, fit)| fit).collect())
    }
}

fn params_of(settings: &FitSettings, width: usize, height: usize, first: usize) -> Params {
    let free = settings.free_parameters();
    Params {
        width: width as u32,
        height: height as u32,
        first: first as u32,
        max_iterations: settings.max_iterations,
        free: free.iter().rev().fold(0, |bits, &f| bits << 1 | u32::from(f)),
        is_point: (settings.shape == Shape::Point).into(),
        reach: settings.reach_px as f32,
        photon_variance: settings.photon_variance as f32,
        least_sigma: settings.sigma_range.0 as f32,
        most_sigma: settings.sigma_range.1 as f32,
        stop_delta_chi2: STOP_DELTA_CHI2 as f32,
        most_stop_damping: MOST_STOP_DAMPING as f32,
        clip_sigmas: settings.clip_sigmas as f32,
        beyond_border: BEYOND_BORDER_WIDTHS as f32,
        expected_sigma: settings.sigma_prior.map_or(0.0, |p| p.sigma_px) as f32,
        sigma_weight: settings.sigma_weight() as f32,
    }
}

fn on_host(fit: &DeviceFit, walk: &DeviceWalk) -> TrailFit {
    let state = &fit.state;
    let in_frame =
        |x: f32, y: f32| Point::new(f64::from(walk.origin_x) + f64::from(x), f64::from(walk.origin_y) + f64::from(y));
    let flux = f64::from(state.flux);
    TrailFit {
        trail: Trail {
            segment: Segment::new(in_frame(state.x1, state.y1), in_frame(state.x2, state.y2)),
            flux,
            background: f64::from(state.background),
            sigma_eff_px: f64::from(state.sigma),
        },
        information: fit.information.map(f64::from),
        snr: flux.signum() * f64::from(fit.power).sqrt(),
        chi2: f64::from(fit.chi2),
        n_pixels: f64::from(fit.n_pixels),
        iterations: fit.iterations,
        converged: fit.converged != 0,
        end_coverage: fit.end_coverage.map(f64::from),
    }
}
