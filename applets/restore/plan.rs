//! How one tree is restored: as the snapshot has it, or with care for what has been made there since.
#![forbid(unsafe_code)]

use std::path::Path;

use molecule_tools::error::{Error, escape};
use molecule_tools::fs::Dir;
use molecule_tools::log;
use molecule_tools::mirror::Keep;
use molecule_tools::record::{self, StartRecord};
use tracing::{info, warn};

use super::options::Options;

/// Why no tree of this restore may be taken for one in which no runtime has run.
#[derive(Debug, Clone)]
pub enum PlanDoubt {
    /// Something else than a regular file stands in the marker's place.
    OddMarker(&'static str),
    /// No marker can be written, so an earlier restore could not either.
    NoMarker(Error),
    /// The machine went down after an earlier restore, before all of it was on the disk. Its marker was written at
    /// this time.
    CutOff((i64, u32)),
}

/// See the module's description.
pub struct PathPlan {
    pub keep: Option<Keep>,
    pub checksum: bool,
    why: Option<String>,
}

impl PathPlan {
    /// For the tree at `destination`; `None` where there is none yet.
    pub fn of(destination: Option<&Dir>, options: &Options, doubt: Option<&PlanDoubt>) -> Self {
        let full = |checksum| Self { keep: None, checksum, why: None };
        let Some(tree) = destination.filter(|_| !options.force) else { return full(false) };
        let careful = |keep, why| Self { keep: Some(keep), checksum: false, why: Some(why) };
        match (record::look(tree), doubt) {
            (Ok(Some(StartRecord { since, pending: false })), Some(PlanDoubt::CutOff(_))) => Self {
                keep: Some(Keep::ChangedSince(since)),
                checksum: true,
                why: Some("what was restored there is compared".to_owned()),
            },
            // No start is on this disk. What was changed there without being written is the boot's own work.
            (Ok(_), Some(PlanDoubt::CutOff(time))) => Self {
                keep: Some(Keep::ModifiedSince(*time)),
                checksum: true,
                why: Some("what was restored there is compared".to_owned()),
            },
            (Ok(Some(StartRecord { since, .. })), _) => {
                let words = match since.0 {
                    seconds if seconds > 0 => format!("since {}", log::rfc3339(seconds)),
                    _ => "before".to_owned(),
                };
                careful(Keep::ChangedSince(since), format!("a runtime has run there {words}"))
            }
            // An entry that is there already may be of a restore that a power cut ended before its marker. A file of its
            // can have size and time and no content: ext4 writes the size to its journal before the data is there.
            (Ok(None), None) => full(true),
            (Ok(None), Some(PlanDoubt::OddMarker(noun))) => {
                careful(Keep::NewerThanSource, format!("{noun} stands in the place of the marker"))
            }
            (Ok(None), Some(PlanDoubt::NoMarker(error))) => {
                careful(Keep::NewerThanSource, format!("no marker can be written ({error})"))
            }
            (Err(error), _) => {
                warn!("{error}; everything that differs stays");
                careful(
                    Keep::ChangedSince(record::ALWAYS),
                    "a runtime may have run there".to_owned(),
                )
            }
        }
    }

    /// Says what will not be done.
    pub fn say(&self, to: &Path) {
        if let Some(why) = &self.why {
            info!(
                "{}: {why}; nothing is deleted and what is newer stays, \
                 molecule-tools restore --force does the whole",
                escape(to)
            );
        }
    }
}
