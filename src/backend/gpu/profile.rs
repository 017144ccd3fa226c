//! Light along a track, bin by bin. CPU twin: backend/cpu/profile.rs.

use bytemuck::{Pod, Zeroable};

use super::GpuBackend;
use super::kernel::{Access, Commands, Kernel};
use crate::Result;
use crate::backend::{ProfileBins, TrackProfile};
use crate::geometry::Segment;

pub(super) static PROFILE: Kernel = Kernel {
    name: "profile",
    source: include_str!("../../../shaders/profile.wgsl"),
    workgroup: 64,
    params_bytes: size_of::<Params>(),
    buffers: &[Access::Read, Access::Read, Access::Read, Access::Read, Access::Write],
};

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct Params {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) n_bins: u32,
    pub(super) row_of_groups: u32,
    pub(super) sigma: f32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceTrack {
    pub(super) along_x: u32,
    pub(super) half_width: i32,
    pub(super) along: f32,
}

/// Where a track passes a bin, worked out in double precision here.
#[repr(C)]
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
pub(super) struct DeviceBin {
    pub(super) track: u32,
    pub(super) axis: i32,
    pub(super) middle: i32,
    pub(super) from_centre: f32,
}

impl GpuBackend {
    pub(super) fn sum_profiles(&mut self, tracks: &[Segment], sigma_eff_px: f32) -> Result<Vec<TrackProfile>> {
        let all_bins: Vec<ProfileBins> = tracks.iter().map(ProfileBins::of).collect();
        let (mut device_tracks, mut device_bins) = (Vec::new(), Vec::new());
        for (track, bins) in tracks.iter().zip(&all_bins) {
            append_track(track, bins, sigma_eff_px, &mut device_tracks, &mut device_bins);
        }
        let n_bins = device_bins.len();
        let [track_list, bin_list] = &mut self.lists;
        track_list.upload(&self.context, &device_tracks)?;
        bin_list.upload(&self.context, &device_bins)?;
        self.small.reserve::<[f32; 2]>(&self.context, n_bins)?;

        let groups = PROFILE.groups(n_bins);
        let row_of_groups = groups.min(self.context.max_groups());
        let params = Params {
            width: self.width as u32,
            height: self.height as u32,
            n_bins: n_bins as u32,
            row_of_groups,
            sigma: sigma_eff_px,
        };
        let mut commands = Commands::new(&self.context);
        let buffers = [&self.residual, &self.weight, &*track_list, &*bin_list, &self.small];
        commands.dispatch(&PROFILE, &params, &buffers, [row_of_groups, groups.div_ceil(row_of_groups.max(1)), 1])?;
        commands.submit()?;

        let sums: Vec<[f32; 2]> = self.small.read(&self.context, n_bins)?;
        let mut rest = sums.as_slice();
        let on_host = tracks.iter().zip(&all_bins).map(|(track, bins)| {
            let (own, others) = rest.split_at(bins.n);
            rest = others;
            bins.profile(track, own.iter().map(|s| s[0]).collect(), own.iter().map(|s| s[1]).collect())
        });
        Ok(on_host.collect())
    }
}

fn append_track(
    track: &Segment,
    bins: &ProfileBins,
    sigma_eff_px: f32,
    device_tracks: &mut Vec<DeviceTrack>,
    device_bins: &mut Vec<DeviceBin>,
) {
    let (c, s) = track.direction();
    let (along, across) = if bins.along_x { (c, s) } else { (s, c) };
    let (a0, b0) = if bins.along_x { (track.start.x, track.start.y) } else { (track.start.y, track.start.x) };
    let half_width = (3.0 * f64::from(sigma_eff_px) / along.abs()).ceil() as i32;
    let own = device_tracks.len() as u32;
    device_tracks.push(DeviceTrack { along_x: bins.along_x.into(), half_width, along: along as f32 });
    device_bins.extend((0..bins.n).map(|bin| {
        let axis = bins.first + bin as i64;
        let centre = b0 + (axis as f64 - a0) * across / along;
        let middle = centre.round();
        DeviceBin { track: own, axis: axis as i32, middle: middle as i32, from_centre: (middle - centre) as f32 }
    }));
}
