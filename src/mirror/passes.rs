//! How often the trees are walked: once, unless there is not room for all that has to be known at once.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::links::{Id, Ledger, Share};
use super::{Observer, Options, Pass, Report, Stop, run};
use crate::error::Result;
use crate::fs::Dir;

/// Most times that groups of hard links are made anew which a pass has torn, about 100,000 each time.
const ROUNDS: usize = 16;
/// Most shares of the groups of hard links that there is no room for.
const MOST_SHARES: u64 = 1024;

/// What all passes of one mirroring have in common.
#[derive(Clone, Copy)]
pub(super) struct Passes<'a> {
    pub src: &'a Dir,
    pub dst: Option<&'a Dir>,
    pub options: &'a Options,
    pub observer: &'a dyn Observer,
}

impl Passes<'_> {
    pub fn all(&self) -> Result<Report> {
        let first = self.copy()?;
        let full = first.stop == Some(Stop::Full) || first.deletion_deferred;
        let Options { delete, keep, .. } = self.options;
        if !full || !delete || keep.is_some() || first.source_errors {
            return Ok(first);
        }
        // Deletion comes last, for only then is it known that the source could be read. Where the
        // surplus takes the room that is needed, every later run would end here too.
        tracing::info!("the destination is full; what the source does not have is removed first");
        let room = self.run(Pass::MakeRoom, &mut HashSet::new(), &Ledger::new())?;
        let room = self.remove_pending(room)?;
        if room.deleted == 0 || room.stop.is_some() {
            return Ok(first.with_findings_of(room));
        }
        Ok(self.copy()?.after(&first).after(&room))
    }

    fn run(&self, pass: Pass, torn: &mut HashSet<Id>, ledger: &Ledger) -> Result<Report> {
        run(self, pass, torn, ledger)
    }

    fn copy(&self) -> Result<Report> {
        let ledger = Ledger::new();
        let done = self.in_rounds(Pass::Copy, &ledger)?;
        let done = self.link_left(done, &ledger)?;
        self.remove_pending(done)
    }

    /// Runs a pass, and again for the groups of hard links that it has torn.
    fn in_rounds(&self, pass: Pass, ledger: &Ledger) -> Result<Report> {
        let mut torn = HashSet::new();
        let mut done = self.run(pass, &mut torn, ledger)?;
        for _ in 1..ROUNDS {
            if torn.is_empty() || done.stop.is_some() || self.options.keep.is_some() {
                break;
            }
            done = self.run(pass, &mut torn, ledger)?.after(&done);
        }
        Ok(done)
    }

    /// Mirrors the names of hard links that were left for want of room, share by share of their groups,
    /// and in smaller ones where there is still none.
    fn link_left(&self, mut done: Report, ledger: &Ledger) -> Result<Report> {
        let mut names = done.unlinked;
        let mut count = Share::count(done.groups, names);
        while names > 0 && done.stop.is_none() {
            if count > MOST_SHARES {
                done.leave_unlinked(names);
                break;
            }
            tracing::info!("{names} names of hard links are left to {count} more passes");
            names = 0;
            for share in Share::all(count) {
                let part = self.in_rounds(Pass::Links(share), ledger)?;
                names += part.unlinked;
                done = done.with_part(part);
                if done.stop.is_some() {
                    break;
                }
            }
            count *= 4;
        }
        Ok(done)
    }

    /// Removes what the source does not have, if the pass has left that.
    fn remove_pending(&self, mut done: Report) -> Result<Report> {
        if !done.deletion_pending || done.stop.is_some() {
            return Ok(done);
        }
        if done.source_errors {
            // Found by a later pass.
            tracing::warn!(
                "nothing is deleted, because not everything at the source could be read"
            );
            done.deletion_withheld = true;
        } else if done.did_not_fit {
            done.deletion_deferred = true;
        } else {
            done = done.with_part(self.run(Pass::Remove, &mut HashSet::new(), &Ledger::new())?);
        }
        Ok(done)
    }
}
