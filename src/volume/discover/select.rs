//! Choosing one disk, or saying why none.
#![forbid(unsafe_code)]

use super::nvme::{ControllerRecord, EBS_MODEL};
use super::sysfs::WholeDisk;
use crate::error::{Result, escape};

/// The outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskSelection {
    /// This one.
    Taken(WholeDisk, SelectionReason),
    /// There is none.
    None,
    /// It may be one of these, which could not be looked at; the reason of the first failure.
    Unclear(Vec<WholeDisk>, String),
    /// These could be meant; none is taken.
    Several(Vec<WholeDisk>),
}

/// SelectionReason a disk was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectionReason {
    /// The kernel has a disk of that name, though /dev has no node of it.
    KernelName,
    /// Its controller got that name when the volume was attached.
    Record(String),
    /// Its serial number is the volume id.
    Serial,
    /// It is the only EBS disk that nothing uses; its controller's record of its name, if any.
    OnlySpare(Option<String>),
}

/// Whether [`by_name`] has a use for the disk with kernel name `disk` when `name` is asked for: a boot
/// without a volume need not look at any other.
pub fn is_relevant(disk: &str, name: &str) -> bool {
    disk == name || disk.starts_with("nvme") || xen(name).is_some_and(|xen| disk == xen)
}

/// Xen names the disk requested as sdb xvdb, never the other way round.
fn xen(name: &str) -> Option<String> {
    name.strip_prefix("sd").map(|rest| format!("xvd{rest}"))
}

/// Finds the disk attached as `name` (no `/dev/`). `identify` asks a disk's controller; `busy` asks
/// the kernel whether a disk is in use by anything, other mount namespaces included. Both fail where a
/// disk cannot be looked at.
pub fn by_name(
    name: &str,
    disks: &[WholeDisk],
    identify: &dyn Fn(&WholeDisk) -> Result<Option<ControllerRecord>>,
    busy: &dyn Fn(&WholeDisk) -> Result<bool>,
) -> DiskSelection {
    let xen = xen(name);
    let known = |disk: &&WholeDisk| disk.name == name || Some(&disk.name) == xen.as_ref();
    if let Some(disk) = disks.iter().find(known) {
        return DiskSelection::Taken(disk.clone(), SelectionReason::KernelName);
    }
    let mut unclear: Vec<WholeDisk> = Vec::new();
    let mut reason = None;
    let mut asked: Vec<(&WholeDisk, Option<ControllerRecord>)> = Vec::new();
    for disk in disks.iter().filter(|disk| disk.name.starts_with("nvme")) {
        let page = identify(disk).unwrap_or_else(|error| {
            // A disk that is in use is not the one, and often not this container's to open; nor is one
            // whose driver names another model.
            if disk.in_use.is_none() && (disk.model.is_empty() || disk.model == EBS_MODEL) {
                unclear.push(disk.clone());
                reason.get_or_insert(error.to_string());
            }
            None
        });
        asked.push((disk, page));
    }
    let record = |identify: &Option<ControllerRecord>| identify.as_ref()?.requested.clone();
    let named: Vec<&(&WholeDisk, Option<ControllerRecord>)> = asked
        .iter()
        .filter(|(_, page)| record(page).is_some_and(|it| canonical(&it) == canonical(name)))
        .collect();
    match named[..] {
        [] => {}
        [(disk, page)] => {
            let why = SelectionReason::Record(record(page).unwrap_or_default());
            return DiskSelection::Taken(named_by(disk, page), why);
        }
        _ => {
            return DiskSelection::Several(
                named.iter().map(|(d, page)| named_by(d, page)).collect(),
            );
        }
    }
    let mut ebs: Vec<(WholeDisk, Option<String>)> = asked
        .iter()
        .map(|(disk, page)| (named_by(disk, page), record(page)))
        .filter(|(disk, _)| disk.model == EBS_MODEL)
        .collect();
    for (disk, _) in &mut ebs {
        if disk.in_use.is_some() || unclear.iter().any(|it| it.name == disk.name) {
            continue;
        }
        match busy(disk) {
            Ok(true) => disk.in_use = Some("in use".into()),
            Ok(false) => {}
            Err(error) => {
                unclear.push(disk.clone());
                reason.get_or_insert(error.to_string());
            }
        }
    }
    if let Some(reason) = reason {
        return DiskSelection::Unclear(unclear, reason);
    }
    let spare: Vec<&(WholeDisk, Option<String>)> =
        ebs.iter().filter(|(disk, _)| disk.in_use.is_none()).collect();
    match spare[..] {
        [] => DiskSelection::None,
        [(disk, record)] => {
            DiskSelection::Taken(disk.clone(), SelectionReason::OnlySpare(record.clone()))
        }
        _ => DiskSelection::Several(ebs.into_iter().map(|(disk, _)| disk).collect()),
    }
}

/// Finds the disk whose serial number is `id` (`vol-0abc...`, with or without the dash).
pub fn by_volume_id(
    id: &str,
    disks: &[WholeDisk],
    identify: &dyn Fn(&WholeDisk) -> Result<Option<ControllerRecord>>,
) -> DiskSelection {
    let plain = |text: &str| text.replace('-', "").to_ascii_lowercase();
    let mut found: Vec<WholeDisk> = Vec::new();
    let mut unclear: Vec<WholeDisk> = Vec::new();
    let mut reason = None;
    for disk in disks {
        let mut disk = disk.clone();
        if disk.serial.is_empty() && disk.name.starts_with("nvme") {
            match identify(&disk) {
                Ok(page) => disk = named_by(&disk, &page),
                Err(error) => {
                    unclear.push(disk.clone());
                    reason.get_or_insert(error.to_string());
                }
            }
        }
        if plain(&disk.serial) == plain(id) {
            found.push(disk);
        }
    }
    match (found.len(), reason) {
        (0, Some(reason)) => DiskSelection::Unclear(unclear, reason),
        (0, None) => DiskSelection::None,
        (1, _) => DiskSelection::Taken(found.remove(0), SelectionReason::Serial),
        _ => DiskSelection::Several(found),
    }
}

/// The disk with what its controller says filled in where sysfs is silent.
fn named_by(disk: &WholeDisk, page: &Option<ControllerRecord>) -> WholeDisk {
    let mut disk = disk.clone();
    if let Some(page) = page {
        if disk.model.is_empty() {
            disk.model.clone_from(&page.model);
        }
        if disk.serial.is_empty() {
            disk.serial.clone_from(&page.serial);
        }
    }
    disk
}

/// `sdb` and `xvdb` are the same request.
fn canonical(name: &str) -> &str {
    name.strip_prefix("xvd").or(name.strip_prefix("sd")).unwrap_or(name)
}

/// One line about a disk: size, model, serial, use.
pub fn describe_disk(disk: &WholeDisk) -> String {
    let unknown = |text: &str| match text.is_empty() {
        true => "unknown".to_owned(),
        false => escape(text).to_string(),
    };
    format!(
        "/dev/{}: {}, model {}, serial {}, {}",
        escape(&disk.name),
        human_size(disk.size_bytes),
        unknown(&disk.model),
        unknown(&disk.serial),
        disk.in_use.as_deref().unwrap_or("not mounted"),
    )
}

/// Bytes in the largest binary unit that leaves a number of at least one.
pub fn human_size(bytes: u64) -> String {
    let mut value = bytes as f64;
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes} B"),
        _ => format!("{value:.1} {}", units[unit]),
    }
}
