//! Any backend, with the time each of its operations takes.

use std::time::Instant;

use super::{Backend, TileSource, TrackProfile};
use crate::Result;
use crate::frame::Frame;
use crate::geometry::Segment;
use crate::pipeline::background::{BackgroundMap, Mesh, TileStatistics};
use crate::pipeline::lines::Lines;
use crate::pipeline::measure::{FitRequest, FitSettings, Trail, TrailFit};
use crate::pipeline::psf::PsfKernel;
use crate::pipeline::search::{Peak, SearchRequest};
use crate::pipeline::segments::SegmentSet;
use crate::pipeline::weigh::{CompactSource, Footprint};

/// A backend that keeps wall times.
pub(crate) struct Timed {
    inner: Box<dyn Backend>,
    times: Times,
}

/// Milliseconds of each operation, in the order of their first calls.
#[derive(Debug, Default)]
pub(crate) struct Times(Vec<(&'static str, f64)>);

impl Times {
    /// Adds to the time of an operation.
    pub(crate) fn add(&mut self, operation: &'static str, ms: f64) {
        match self.0.iter_mut().find(|(name, _)| *name == operation) {
            Some((_, sum)) => *sum += ms,
            None => self.0.push((operation, ms)),
        }
    }

    /// The sums so far; begins anew.
    pub(crate) fn take(&mut self) -> Vec<(&'static str, f64)> {
        std::mem::take(&mut self.0)
    }
}

impl Timed {
    pub(crate) fn new(inner: Box<dyn Backend>) -> Self {
        Self { inner, times: Times::default() }
    }

    fn time<T>(&mut self, operation: &'static str, call: impl FnOnce(&mut dyn Backend) -> T) -> T {
        let begin = Instant::now();
        let result = call(&mut *self.inner);
        self.times.add(operation, begin.elapsed().as_secs_f64() * 1e3);
        result
    }
}

impl Backend for Timed {
    fn task_size(&self) -> (usize, usize) {
        self.inner.task_size()
    }

    fn frame_bytes(&self, width: usize, height: usize) -> u64 {
        self.inner.frame_bytes(width, height)
    }

    fn take_times(&mut self) -> Vec<(&'static str, f64)> {
        self.times.take()
    }

    fn take_kernel_times(&mut self) -> Result<Vec<(&'static str, f64)>> {
        self.inner.take_kernel_times()
    }

    fn prepare(&mut self, width: usize, height: usize) -> Result<()> {
        self.time("prepare", |b| b.prepare(width, height))
    }

    fn ingest(&mut self, frame: &Frame<'_>) -> Result<()> {
        self.time("ingest", |b| b.ingest(frame))
    }

    fn tile_statistics(&mut self, mesh: Mesh, source: TileSource) -> Result<Vec<TileStatistics>> {
        self.time("tile_statistics", |b| b.tile_statistics(mesh, source))
    }

    fn normalise(&mut self, map: &BackgroundMap) -> Result<()> {
        self.time("normalise", |b| b.normalise(map))
    }

    fn take_off_lines(&mut self, lines: &Lines) -> Result<()> {
        self.time("take_off_lines", |b| b.take_off_lines(lines))
    }

    fn weigh_out_hot(&mut self, threshold: f32, ratio: f32) -> Result<()> {
        self.time("weigh_out_hot", |b| b.weigh_out_hot(threshold, ratio))
    }

    fn filter(&mut self, kernel: &PsfKernel, clip: f32, with_saturated: bool) -> Result<()> {
        self.time("filter", |b| b.filter(kernel, clip, with_saturated))
    }

    fn find_compact(&mut self, threshold: f32, wing_level: f32) -> Result<Vec<CompactSource>> {
        self.time("find_compact", |b| b.find_compact(threshold, wing_level))
    }

    fn weigh_out(&mut self, footprints: &[Footprint]) -> Result<()> {
        self.time("weigh_out", |b| b.weigh_out(footprints))
    }

    fn find_peaks(&mut self, segments: &SegmentSet, request: &SearchRequest) -> Result<Vec<Peak>> {
        self.time("find_peaks", |b| b.find_peaks(segments, request))
    }

    fn profiles(&mut self, tracks: &[Segment], sigma_eff_px: f32) -> Result<Vec<TrackProfile>> {
        self.time("profiles", |b| b.profiles(tracks, sigma_eff_px))
    }

    fn fit(&mut self, requests: &[FitRequest], settings: &FitSettings) -> Result<Vec<TrailFit>> {
        self.time("fit", |b| b.fit(requests, settings))
    }

    fn add_trails(&mut self, trails: &[Trail], factor: f32) -> Result<()> {
        self.time("add_trails", |b| b.add_trails(trails, factor))
    }

    #[cfg(all(test, feature = "gpu"))]
    fn read_images(&mut self) -> Result<(Vec<f32>, Vec<f32>)> {
        self.inner.read_images()
    }

    #[cfg(all(test, feature = "gpu"))]
    fn read_filtered(&mut self) -> Result<(Vec<f32>, Vec<f32>)> {
        self.inner.read_filtered()
    }

    #[cfg(all(test, feature = "gpu"))]
    fn write_images(&mut self, images: [&[f32]; 4]) -> Result<()> {
        self.inner.write_images(images)
    }
}
