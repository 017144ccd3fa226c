//! Light along a track, bin by bin. CPU twin: backend/cpu/profile.rs.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;

use super::GpuBackend;
use super::commands::Commands;
use super::kernel::{Access, Kernel};
use crate::Result;
use crate::backend::{ProfileBins, TrackProfile};
use crate::geometry::Segment;

pub(super) static PROFILE: Kernel = Kernel {
    name: "profile",
    source: include_str!("../../../shaders/profile.wgsl"),
    workgroup: 64,
    params_bytes: size_of::<Params>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
    constants: &[],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) n_parts: u32,
    pub(super) row_of_groups: u32,
    pub(super) sigma: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceTrack {
    pub(super) along_x: u32,
    pub(super) half_width: i32,
    pub(super) along: f32,
    pub(super) slope: i32,
    pub(super) slope_rest: f32,
}

/// Bins of one workgroup, and where the track passes them: worked out in double precision here.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DevicePart {
    pub(super) track: u32,
    pub(super) n_bins: u32,
    pub(super) first: i32,
    pub(super) pixel: i32,
    pub(super) beyond: i32,
    pub(super) beyond_rest: f32,
}

/// Parts of a pixel that the device counts in.
pub(super) const FIXED: f64 = 16_777_216.0;

impl GpuBackend {
    pub(super) fn sum_profiles(&mut self, tracks: &[Segment], sigma_eff_px: f32) -> Result<Vec<TrackProfile>> {
        let bins: Vec<ProfileBins> = tracks.par_iter().map(ProfileBins::of).collect();
        let device_tracks: Vec<DeviceTrack> =
            tracks.par_iter().zip(&bins).map(|(track, bins)| device_track(track, bins, sigma_eff_px)).collect();
        let parts: Vec<DevicePart> = tracks
            .par_iter()
            .zip(&bins)
            .enumerate()
            .flat_map_iter(|(k, (track, bins))| parts(k, track, bins))
            .collect();
        let [track_list, part_list] = &mut self.lists;
        track_list.upload(&self.context, &device_tracks)?;
        part_list.upload(&self.context, &parts)?;
        let n_sums = parts.len() * PROFILE.workgroup as usize;
        self.small.reserve::<[f32; 2]>(&self.context, n_sums)?;

        let groups = parts.len() as u32;
        let row_of_groups = groups.min(self.context.max_groups());
        let params = Params {
            width: self.width as u32,
            height: self.height as u32,
            n_parts: groups,
            row_of_groups,
            sigma: sigma_eff_px,
        };
        let mut commands = Commands::new(&self.context, &mut self.recorder);
        let buffers = [&self.residual, &self.weight, &*track_list, &*part_list, &self.small];
        commands.dispatch(&PROFILE, &params, &buffers, [row_of_groups, groups.div_ceil(row_of_groups.max(1)), 1])?;
        commands.submit()?;

        let sums: Vec<[f32; 2]> = self.small.read(&self.context, n_sums)?;
        // Every track begins with a workgroup of its own.
        let mut rest = sums.as_slice();
        let of_track: Vec<&[[f32; 2]]> = bins
            .iter()
            .map(|bins| {
                let (own, others) = rest.split_at(bins.n.next_multiple_of(PROFILE.workgroup as usize));
                rest = others;
                &own[..bins.n]
            })
            .collect();
        let profile = |((track, bins), sums): ((&Segment, &ProfileBins), &&[[f32; 2]])| {
            bins.profile(track, sums.iter().map(|s| s[0]).collect(), sums.iter().map(|s| s[1]).collect())
        };
        Ok(tracks.par_iter().zip(&bins).zip(&of_track).map(profile).collect())
    }
}

/// Along and across the axis of its bins: the track's direction and its start.
fn turned(track: &Segment, bins: &ProfileBins) -> ((f64, f64), (f64, f64)) {
    let (c, s) = track.direction();
    if bins.along_x { ((c, s), (track.start.x, track.start.y)) } else { ((s, c), (track.start.y, track.start.x)) }
}

fn device_track(track: &Segment, bins: &ProfileBins, sigma_eff_px: f32) -> DeviceTrack {
    let ((along, across), _) = turned(track, bins);
    let slope = across / along;
    let fixed = (slope * FIXED).round();
    DeviceTrack {
        along_x: bins.along_x.into(),
        half_width: (3.0 * f64::from(sigma_eff_px) / along.abs()).ceil() as i32,
        along: along as f32,
        slope: fixed as i32,
        slope_rest: (slope - fixed / FIXED) as f32,
    }
}

/// The bins of one track, cut for the workgroups.
fn parts(index: usize, track: &Segment, bins: &ProfileBins) -> impl Iterator<Item = DevicePart> {
    let ((along, across), (a0, b0)) = turned(track, bins);
    let slope = across / along;
    let (first, n, at_once) = (bins.first, bins.n, PROFILE.workgroup as usize);
    (0..n).step_by(at_once).map(move |bin| {
        let axis = first + bin as i64;
        let centre = b0 + (axis as f64 - a0) * slope;
        let beyond = (centre - centre.floor()) * FIXED;
        DevicePart {
            track: index as u32,
            n_bins: (n - bin).min(at_once) as u32,
            first: axis as i32,
            pixel: centre.floor() as i32,
            beyond: beyond.floor() as i32,
            beyond_rest: ((beyond - beyond.floor()) / FIXED) as f32,
        }
    })
}
