//! The report of a restore: printed by `--json`, and the content of the marker.
#![forbid(unsafe_code)]

use std::path::Path;

use molecule_tools::log;
use molecule_tools::mirror::Side;
use serde_json::{Value, json};

use crate::exit::Status;

use super::caller::RestoreCaller;
use super::marker;
use super::path::{PathJob, PathReport, RestoredPath};

/// Everything one restore did.
pub struct Report {
    head: Value,
    paths: Vec<Value>,
    /// Whether the source may lack recent changes.
    stale: bool,
    /// Asked for by somebody who wants to know whether anything was restored.
    by_hand: bool,
    interrupted: bool,
    restored: usize,
    refused: usize,
    /// Whether anything is not as it should be.
    flawed: bool,
}

impl Report {
    pub fn new(
        root: &Path,
        source: Value,
        stale: bool,
        dry_run: bool,
        caller: RestoreCaller,
    ) -> Self {
        let head = json!({
            "durable": false,
            "boot_id": marker::boot_id(),
            "program": concat!("molecule-tools ", env!("CARGO_PKG_VERSION")),
            "started": log::timestamp(),
            "root": root.to_string_lossy(),
            "source": source,
            "stale": stale,
            "dry_run": dry_run,
        });
        Self {
            head,
            paths: Vec::new(),
            stale,
            by_hand: caller == RestoreCaller::Hand,
            interrupted: false,
            restored: 0,
            refused: 0,
            flawed: false,
        }
    }

    pub fn add(&mut self, path: &Path, job: &PathJob<'_>, restored: RestoredPath) {
        let (from, to) = job.shown(path);
        let mut entry = json!({
            "path": path.to_string_lossy(),
            "source": from.to_string_lossy(),
            "destination": to.to_string_lossy(),
        });
        let facts = match restored {
            RestoredPath::Absent => json!({ "status": 0, "result": "absent" }),
            RestoredPath::Refused(reason) => {
                self.refused += 1;
                self.flawed = true;
                json!({ "status": 23, "result": "refused", "reason": reason })
            }
            RestoredPath::Mirrored(report) => {
                self.restored += 1;
                self.flawed |= report.status() != 0;
                mirrored(&report)
            }
        };
        if let (Some(entry), Value::Object(facts)) = (entry.as_object_mut(), facts) {
            entry.extend(facts);
        }
        self.paths.push(entry);
    }

    /// The report of a restore that a signal ended.
    #[must_use]
    pub fn interrupted(self) -> Self {
        Self { interrupted: true, ..self }
    }

    pub fn is_by_hand(&self) -> bool {
        self.by_hand
    }

    /// Notes that everything that was restored is on the disk.
    pub fn is_durable(&mut self) {
        self.head["durable"] = true.into();
    }

    /// Notes that no marker could be written.
    pub fn lacks_marker(&mut self) {
        self.flawed = true;
    }

    /// [`Status::Failed`] if not one path could even be begun.
    pub fn status(&self) -> Status {
        match (self.flawed, self.restored) {
            _ if self.interrupted => Status::Interrupted,
            (true, 0) => Status::Failed,
            (false, 0) if self.by_hand => Status::Failed,
            (false, _) if !self.stale => Status::Done,
            _ => Status::Partial,
        }
    }

    pub fn to_json(&self) -> Value {
        let result = match self.status() {
            Status::Interrupted => "interrupted",
            Status::Done => "restored",
            Status::Failed => "failed",
            _ => "partial",
        };
        let mut report = self.head.clone();
        if let Some(report) = report.as_object_mut() {
            report.insert("finished".into(), log::timestamp().into());
            report.insert("status".into(), self.status().code().into());
            report.insert("result".into(), result.into());
            report.insert("paths".into(), self.paths.clone().into());
        }
        report
    }
}

fn mirrored(report: &PathReport) -> Value {
    let mirror = &report.mirror;
    let failures: Vec<Value> = mirror
        .failures
        .iter()
        .map(|failure| {
            json!({
                "side": match failure.side {
                    Side::Source => "source",
                    Side::Destination => "destination",
                },
                "path": failure.path.to_string_lossy(),
                "reason": failure.reason,
            })
        })
        .collect();
    json!({
        "status": report.status(),
        "result": if report.status() == 0 { "restored" } else { "partial" },
        "seconds": (mirror.elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        "files": mirror.files,
        "directories": mirror.directories,
        "symlinks": mirror.symlinks,
        "specials": mirror.specials,
        "hard_links": mirror.hard_links,
        "copied": mirror.copied,
        "privileged_files": mirror.privileged_files,
        "devices": mirror.devices,
        "privileges_left_out": mirror.privileges_left_out,
        "touched": mirror.touched,
        "deleted": mirror.deleted,
        "kept": mirror.kept,
        "kept_paths": mirror.kept_paths.iter().map(|path| path.to_string_lossy()).collect::<Vec<_>>(),
        "bytes": mirror.bytes,
        "mounts_left_out": mirror.mounts_left_out,
        "vanished": mirror.vanished,
        "deletion_withheld": mirror.deletion_withheld,
        "mismatches": report.mismatches,
        "errors": mirror.errors,
        "failures": failures,
    })
}
