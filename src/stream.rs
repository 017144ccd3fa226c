//! A stream of frames: several in flight, results in order, memory bounded.
//!
//! Workers take turns to pull the next frame from the source, and pull no more than the budget has room for: a source
//! that is faster than the detector waits. What is computed is [`Detector::detect`], frame by frame.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::detector::Detector;
use crate::{Error, Frame, Report, Result};

/// How a stream is worked through.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StreamConfig {
    /// Frames in flight, at most. One for each core, from two to four, by default: one alone leaves cores idle where its
    /// stages are not parallel; on a GPU others are uploaded and read back meanwhile. The CPU computes one for every two
    /// cores at the same time, and opens others meanwhile: more are in each other's way.
    pub frames_in_flight: usize,
    /// Memory for the frames of the stream, bytes: raw pixels, images and tables of those being computed, and raw pixels
    /// of those whose results wait for an earlier one. Fewer frames are in flight where it is not enough. 4 GiB by
    /// default, enough for four frames of 4096² on the CPU, where one takes 0.6 GiB at most, and for three on a GPU, where
    /// it takes 1.33 GiB at most.
    pub memory_limit_bytes: u64,
}

impl Default for StreamConfig {
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Self { frames_in_flight: cores.clamp(2, 4), memory_limit_bytes: 4 << 30 }
    }
}

/// What a stream came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StreamSummary {
    /// Frames that the source gave.
    pub frames: u64,
    /// Those that ended in an error.
    pub failed: u64,
    /// Pixels of the frames that did not.
    pub pixels: u64,
    /// Frames that were computed at the same time, at most.
    pub most_in_flight: usize,
    /// Memory of the stream at its peak, bytes, counted as for [`StreamConfig::memory_limit_bytes`].
    pub peak_bytes: u64,
}

/// So many frames may be pulled from the source and not delivered, for each one that may be computed: room for those
/// that are done while an earlier, slower one is not.
const WAITING: usize = 2;

impl Detector {
    /// Finds the streaks of frame after frame, with several in flight.
    ///
    /// `source` gives items of any kind: paths, frames, guards of slots in a camera's ring buffer. `open` makes the
    /// frame of an item, on the thread that then computes it, so that files are read in parallel; a frame may borrow
    /// its pixels from the item. `sink` gets every item back with its result, in the order of the source, on the
    /// calling thread. An item is dropped, or reused, only then.
    ///
    /// A frame that cannot be opened or computed gives its error to the sink, and the stream goes on. The source is
    /// asked for an item when there is room for it, and may block. The stream ends when the source does.
    ///
    /// ```
    /// use skystreak::{Detector, DetectorConfig, Device, Frame, Segment, StreamConfig, simulate};
    ///
    /// let detector = Detector::new(DetectorConfig {
    ///     device: Device::Cpu,
    ///     psf_sigma_px: Some(1.5),
    ///     ..DetectorConfig::default()
    /// })?;
    /// // Stands for a camera: each frame has a streak one row below the last one's.
    /// let camera = (0..6).map(|i| {
    ///     let mut pixels = simulate::gaussian_frame(200, 160, i, 1.0);
    ///     let y = 60.0 + i as f64;
    ///     simulate::add_streak(&mut pixels, 200, &Segment::from_coordinates(40.0, y, 140.0, y + 20.0), 1.5, 700.0);
    ///     pixels
    /// });
    /// let mut heights = Vec::new();
    /// let summary = detector.stream(
    ///     &StreamConfig::default(),
    ///     camera,
    ///     |pixels| Frame::new(pixels, 200, 160),
    ///     |_pixels, report| heights.push(report.unwrap().detections[0].midpoint().y),
    /// )?;
    /// assert_eq!(summary.frames, 6);
    /// assert!(heights.is_sorted());
    /// # Ok::<(), skystreak::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Config`] when no frame may be in flight. A frame too large for the budget gives [`Error::Limit`] to the
    /// sink.
    pub fn stream<T: Send>(
        &self,
        config: &StreamConfig,
        source: impl IntoIterator<Item = T, IntoIter: Send>,
        open: impl Fn(&T) -> Result<Frame<'_>> + Sync,
        mut sink: impl FnMut(T, Result<Report>),
    ) -> Result<StreamSummary> {
        if config.frames_in_flight == 0 {
            return Err(Error::Config("stream.frames_in_flight is 0, it must be 1 or more".into()));
        }
        let stream = Stream {
            detector: self,
            config,
            source: Mutex::new(source.into_iter().fuse()),
            state: Mutex::new(State { threads: config.frames_in_flight + 1, ..State::default() }),
            changed: Condvar::new(),
        };
        thread::scope(|scope| {
            for _ in 0..config.frames_in_flight {
                scope.spawn(|| stream.work(&open));
            }
            stream.deliver(&mut sink);
        });
        Ok(lock(&stream.state).summary)
    }
}

/// What workers share.
struct Stream<'a, T, I> {
    detector: &'a Detector,
    config: &'a StreamConfig,
    /// Held while the next item is waited for: items are numbered in the order of the source.
    source: Mutex<I>,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    pulled: u64,
    delivered: u64,
    computing: usize,
    /// Frames that are open, and not yet computed.
    waiting: BTreeSet<u64>,
    /// The largest frame so far. All are counted like it: buffers of one frame serve the next.
    largest: Option<Need>,
    /// Results that wait for their turn.
    done: BTreeMap<u64, (T, Result<Report>)>,
    /// Threads at work: the workers, and the one that delivers.
    threads: usize,
    /// A thread panicked: what is in flight will not be complete.
    broken: bool,
    summary: StreamSummary,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self {
            pulled: 0,
            delivered: 0,
            computing: 0,
            waiting: BTreeSet::new(),
            largest: None,
            done: BTreeMap::new(),
            threads: 0,
            broken: false,
            summary: StreamSummary::default(),
        }
    }
}

/// Memory of one frame, bytes.
#[derive(Debug, Clone, Copy)]
struct Need {
    raw: u64,
    working: u64,
}

impl Need {
    /// For each frame in computation, with those that wait to be computed or delivered.
    fn bytes(self) -> u64 {
        self.working + WAITING as u64 * self.raw
    }

    fn max(self, other: Option<Self>) -> Self {
        let other = other.unwrap_or(self);
        Self { raw: self.raw.max(other.raw), working: self.working.max(other.working) }
    }
}

impl<T: Send, I: Iterator<Item = T> + Send> Stream<'_, T, I> {
    /// One worker: pulls, opens, computes, until the source ends.
    fn work(&self, open: &(impl Fn(&T) -> Result<Frame<'_>> + Sync)) {
        let _leave = Leave { stream: self };
        while let Some((number, item)) = self.pull() {
            let mut pixels = 0;
            let result = open(&item).and_then(|frame| {
                pixels = frame.pixels().len() as u64;
                self.compute(number, &frame)
            });
            let mut state = lock(&self.state);
            match &result {
                Ok(_) => state.summary.pixels += pixels,
                Err(_) => state.summary.failed += 1,
            }
            state.done.insert(number, (item, result));
            self.changed.notify_all();
        }
    }

    /// The next item, when there is room for it.
    fn pull(&self) -> Option<(u64, T)> {
        let mut source = lock(&self.source);
        let number = {
            let has_room = |s: &State<T>| {
                // How large frames are is known from the first one on.
                let most = if s.largest.is_some() { WAITING * self.most_in_flight(s) } else { 1 };
                s.broken || s.pulled - s.delivered < most as u64
            };
            let state = self.wait_until(has_room);
            if state.broken {
                return None;
            }
            state.pulled
        };
        let item = source.next()?;
        let mut state = lock(&self.state);
        state.pulled += 1;
        state.summary.frames += 1;
        Some((number, item))
    }

    /// Frames of the largest size so far that the budget has room for.
    fn most_in_flight(&self, state: &State<T>) -> usize {
        let room = state.largest.map_or(1, |need| self.config.memory_limit_bytes / need.bytes().max(1));
        (room as usize).clamp(1, self.config.frames_in_flight)
    }

    /// Those that are open are computed in the order of the source, as results are wanted.
    fn compute(&self, number: u64, frame: &Frame<'_>) -> Result<Report> {
        let need = Need { raw: frame.bytes(), working: self.detector.frame_bytes(frame.width(), frame.height())? };
        if need.bytes() > self.config.memory_limit_bytes {
            return Err(Error::Limit {
                what: format!("a {} x {} frame in a stream (bytes)", frame.width(), frame.height()),
                requested: need.bytes(),
                allowed: self.config.memory_limit_bytes,
            });
        }
        let most_idle = {
            let mut state = lock(&self.state);
            state.largest = Some(need.max(state.largest));
            state.waiting.insert(number);
            drop(state);
            self.changed.notify_all();
            let at_once = self.detector.frames_at_once();
            let is_next = |s: &State<T>| s.waiting.first() == Some(&number);
            let mut state = self.wait_until(|s| is_next(s) && s.computing < self.most_in_flight(s).min(at_once));
            state.waiting.remove(&number);
            state.computing += 1;
            // The next one may have waited for this one alone.
            self.changed.notify_all();
            let State { computing, pulled, delivered, .. } = *state;
            let raw = (pulled - delivered) * need.raw;
            let summary = &mut state.summary;
            summary.most_in_flight = summary.most_in_flight.max(computing);
            summary.peak_bytes = summary.peak_bytes.max(computing as u64 * need.working + raw);
            // Buffers that idle backends hold count as well.
            self.most_in_flight(&state) + 1 - computing
        };
        self.detector.keep_backends(most_idle);
        let _done = Computing { stream: self };
        self.detector.detect(frame)
    }

    /// Hands results to the sink in the order of the source, until no more can come.
    fn deliver(&self, sink: &mut impl FnMut(T, Result<Report>)) {
        let _leave = Leave { stream: self };
        loop {
            let next = |s: &State<T>| s.done.contains_key(&s.delivered) || s.threads == 1 || s.broken;
            let mut state = self.wait_until(next);
            let number = state.delivered;
            let Some((item, result)) = state.done.remove(&number) else { return };
            drop(state);
            sink(item, result);
            lock(&self.state).delivered += 1;
            self.changed.notify_all();
        }
    }

    fn wait_until(&self, condition: impl Fn(&State<T>) -> bool) -> MutexGuard<'_, State<T>> {
        self.changed.wait_while(lock(&self.state), |s| !condition(s)).unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a frame out when its computation ends, however it ends.
struct Computing<'s, 'a, T, I> {
    stream: &'s Stream<'a, T, I>,
}

impl<T, I> Drop for Computing<'_, '_, T, I> {
    fn drop(&mut self) {
        lock(&self.stream.state).computing -= 1;
        self.stream.changed.notify_all();
    }
}

/// Counts a thread out when it ends, and tells the others where it panicked.
struct Leave<'s, 'a, T, I> {
    stream: &'s Stream<'a, T, I>,
}

impl<T, I> Drop for Leave<'_, '_, T, I> {
    fn drop(&mut self) {
        let mut state = lock(&self.stream.state);
        state.threads -= 1;
        state.broken |= thread::panicking();
        drop(state);
        self.stream.changed.notify_all();
    }
}

/// Counters stay true where a thread panics: each change of them is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
