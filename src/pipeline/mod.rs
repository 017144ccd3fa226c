//! WHAT is done to a frame: one file a stage, each with its configuration and its result.
//!
//! Nothing here touches an image: pixels live behind [`Backend`](crate::backend::Backend), and what comes back
//! from it is small.

pub(crate) mod along;
pub(crate) mod background;
pub(crate) mod believed;
pub(crate) mod blends;
pub(crate) mod bundles;
pub(crate) mod candidates;
pub(crate) mod chain;
pub(crate) mod clear_targets;
pub(crate) mod detected;
pub(crate) mod disk;
pub(crate) mod doubles;
pub(crate) mod elongated;
pub(crate) mod empty;
pub(crate) mod ends;
pub(crate) mod errors;
pub(crate) mod extended;
pub(crate) mod galaxies;
pub(crate) mod hidden;
pub(crate) mod in_line;
pub(crate) mod judge;
pub(crate) mod last_fits;
pub(crate) mod lines;
pub(crate) mod measure;
pub(crate) mod merge;
pub(crate) mod peel;
pub(crate) mod pieces;
pub(crate) mod points;
pub(crate) mod psf;
pub(crate) mod report;
pub(crate) mod reported_fits;
pub(crate) mod rows;
pub(crate) mod saturated;
pub(crate) mod scan;
pub(crate) mod search;
pub(crate) mod segments;
pub(crate) mod spikes;
pub(crate) mod star_trails;
pub(crate) mod stars;
pub(crate) mod stars_on_trail;
pub(crate) mod strip;
pub(crate) mod surroundings;
pub(crate) mod threshold;
pub(crate) mod tracking;
pub(crate) mod turns;
pub(crate) mod uneven;
pub(crate) mod weigh;
pub(crate) mod wings;
