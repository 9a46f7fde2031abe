//! How often the trees are walked: once, unless there is not room for all that has to be known at once.
#![forbid(unsafe_code)]

use std::collections::HashSet;

use super::engine::MirrorPass;
use super::ledger::{GroupShare, LinkLedger};
use super::options::{MirrorRequest, Options};
use super::report::{Report, Stop};
use super::run::run;
use crate::error::Result;

/// Most times that groups of hard links are made anew which a pass has torn, about 100,000 each time.
const ROUNDS: usize = 16;
/// Most shares of the groups of hard links that there is no room for.
const MOST_SHARES: u64 = 1024;

/// Mirrors the trees; see [`mirror`](super::mirror).
pub(super) fn all(request: &MirrorRequest<'_>) -> Result<Report> {
    let first = copy(request)?;
    let full = first.stop == Some(Stop::Full) || first.deletion_deferred;
    let Options { delete, keep, .. } = request.options;
    if !full || !delete || keep.is_some() || first.source_errors {
        return Ok(first);
    }
    // Deletion comes last, for only then is it known that the source could be read. Where the
    // surplus takes the room that is needed, every later run would end here too.
    tracing::info!("the destination is full; what the source does not have is removed first");
    let room = run(request, MirrorPass::MakeRoom, &mut HashSet::new(), &LinkLedger::new())?;
    let room = remove_pending(request, room)?;
    if room.deleted == 0 || room.stop.is_some() {
        return Ok(first.with_findings_of(room));
    }
    Ok(copy(request)?.after(&first).after(&room))
}

fn copy(request: &MirrorRequest<'_>) -> Result<Report> {
    let ledger = LinkLedger::new();
    let done = in_rounds(request, MirrorPass::Copy, &ledger)?;
    let done = link_left(request, done, &ledger)?;
    remove_pending(request, done)
}

/// Runs a pass, and again for the groups of hard links that it has torn.
fn in_rounds(request: &MirrorRequest<'_>, pass: MirrorPass, ledger: &LinkLedger) -> Result<Report> {
    let mut torn = HashSet::new();
    let mut done = run(request, pass, &mut torn, ledger)?;
    for _ in 1..ROUNDS {
        if torn.is_empty() || done.stop.is_some() || request.options.keep.is_some() {
            break;
        }
        done = run(request, pass, &mut torn, ledger)?.after(&done);
    }
    Ok(done)
}

/// Mirrors the names of hard links that were left for want of room, share by share of their groups,
/// and in smaller ones where there is still none.
fn link_left(request: &MirrorRequest<'_>, mut done: Report, ledger: &LinkLedger) -> Result<Report> {
    let mut names = done.unlinked;
    let mut count = GroupShare::count(done.groups, names);
    while names > 0 && done.stop.is_none() {
        if count > MOST_SHARES {
            done.leave_unlinked(names);
            break;
        }
        tracing::info!("{names} names of hard links are left to {count} more passes");
        names = 0;
        for share in GroupShare::all(count) {
            let part = in_rounds(request, MirrorPass::Links(share), ledger)?;
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
fn remove_pending(request: &MirrorRequest<'_>, mut done: Report) -> Result<Report> {
    if !done.deletion_pending || done.stop.is_some() {
        return Ok(done);
    }
    if done.source_errors {
        // Found by a later pass.
        tracing::warn!("nothing is deleted, because not everything at the source could be read");
        done.deletion_withheld = true;
    } else if done.did_not_fit {
        done.deletion_deferred = true;
    } else {
        done = done.with_part(run(
            request,
            MirrorPass::Remove,
            &mut HashSet::new(),
            &LinkLedger::new(),
        )?);
    }
    Ok(done)
}
