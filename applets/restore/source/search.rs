//! Looks for each path of the restore set: over the file systems of a volume, and the trees in each.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use molecule_tools::error::{Error, escape};
use molecule_tools::volume::mount::{self, MountedVolume, ShownMount};
use molecule_tools::volume::nodes::DeviceNodes;
use molecule_tools::volume::place::MountPlace;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::candidates::CandidateFs;
use super::locate::LocatedDevice;
use super::request::SourceRequest;
use super::subvolumes::{SubvolumeHit, SubvolumeTrees, below};
use super::trees::{FoundTree, SourceTrees, TreePlace};

/// Most file systems that are mounted at once to find the restore set.
const MOST: usize = 8;

/// The input of a search.
pub struct SourceSearch<'a> {
    pub request: &'a SourceRequest<'a>,
    pub located: &'a LocatedDevice,
    pub nodes: &'a DeviceNodes,
    pub place: Option<&'a MountPlace>,
    /// The device in log lines.
    pub name: &'a str,
    /// Whether some of the device could not be read: there may be more on it than was found.
    pub unread: bool,
}

/// A file system that was mounted.
struct Volume<'a> {
    candidate: &'a CandidateFs<'a>,
    mounted: MountedVolume,
    trees: SubvolumeTrees,
    /// Whether it has one of the paths.
    holds: bool,
}

/// A path that was found: in which volume.
struct At {
    volume: usize,
    hit: SubvolumeHit,
}

/// The state of one path.
enum Look {
    Missing,
    There(At),
    Unknown(Error),
}

impl<'a> SourceSearch<'a> {
    /// Mounts one candidate after the other until each path of the restore set is found, and shows the
    /// first that has one of them; if none has, the first that could be mounted. `None` if none could.
    pub fn run(&self, candidates: &'a [CandidateFs<'a>]) -> Option<(SourceTrees, Value)> {
        let mut volumes: Vec<Volume<'a>> = Vec::new();
        let mut looks: Vec<Look> = self.request.paths.iter().map(|_| Look::Missing).collect();
        let mut unclear = self.unread.then(|| "some of the device could not be read".to_owned());
        for candidate in candidates {
            if volumes.len() == MOST {
                unclear = Some(format!("only {MOST} file systems of it were looked at"));
                warn!("{}: only {MOST} file systems are looked at", self.name);
                break;
            }
            match self.mount(candidate) {
                Ok(volume) => volumes.push(volume),
                Err(reason) => {
                    unclear = Some(reason);
                    continue;
                }
            }
            self.look_into(&mut volumes, &mut looks);
            if !looks.iter().any(|look| matches!(look, Look::Missing)) {
                break;
            }
        }
        self.look_for_mount_points(&mut volumes, &mut looks);
        self.finish(volumes, looks, unclear)
    }

    fn mount(&self, candidate: &'a CandidateFs<'a>) -> Result<Volume<'a>, String> {
        let label = candidate.label(self.name);
        info!("{} fstype={}", self.name, escape(candidate.fstype));
        if candidate.backup_superblock.is_some() {
            warn!("{label}: the first superblock is damaged, a copy of it was found");
        }
        let target = candidate.target(self.located, Path::new(&label));
        let mounted = mount::mount(&target, self.nodes, self.place)
            .map_err(|error| format!("{label} could not be mounted: {error}"))?;
        let trees = SubvolumeTrees::of(&mounted.root, candidate.fstype, &label);
        Ok(Volume { candidate, mounted, trees, holds: false })
    }

    /// Looks for the missing paths in the volume that was mounted last.
    fn look_into(&self, volumes: &mut [Volume<'_>], looks: &mut [Look]) {
        let index = volumes.len() - 1;
        let is_first = !volumes.iter().any(|volume| volume.holds);
        let Some(volume) = volumes.last_mut() else { return };
        for (path, look) in self.request.paths.iter().zip(looks) {
            if matches!(look, Look::Missing) {
                match volume.trees.find(&volume.mounted.root, path) {
                    Ok(Some(hit)) => {
                        volume.holds = true;
                        *look = Look::There(At { volume: index, hit });
                    }
                    Ok(None) => {}
                    Err(error) => *look = Look::Unknown(error),
                }
            }
        }
        let label = volume.candidate.label(self.name);
        match (volume.holds, volume.candidate.partition) {
            (true, Some(_)) if is_first => info!("taking {label}: it holds the restore set"),
            (true, Some(_)) => info!("taking {label} too: it holds the rest of the restore set"),
            (false, Some(number)) => {
                info!("partition {number} of {} holds nothing of the restore set", self.name);
            }
            (_, None) => {}
        }
    }

    /// Looks for the paths that are still missing on partitions that were mounted on a directory of
    /// the system: what was `/home/agent` is `agent` on the one that was /home.
    fn look_for_mount_points(&self, volumes: &mut [Volume<'_>], looks: &mut [Look]) {
        for (path, look) in self.request.paths.iter().zip(looks.iter_mut()) {
            if !matches!(look, Look::Missing) {
                continue;
            }
            let mut hits = Vec::new();
            for (index, volume) in volumes.iter().enumerate() {
                let searched = volume.candidate.partition.is_some() && !volume.holds;
                if !searched {
                    continue;
                }
                match below_mount_point(volume, path) {
                    Ok(Some(hit)) => hits.push(At { volume: index, hit }),
                    Ok(None) => {}
                    Err(error) => *look = Look::Unknown(error),
                }
            }
            match (hits.len(), hits.pop()) {
                (1, Some(at)) if matches!(look, Look::Missing) => *look = Look::There(at),
                (0 | 1, _) => {}
                (count, _) => {
                    let reason = format!("{count} partitions have it");
                    *look = Look::Unknown(Error::on("choose the source of", path, reason));
                }
            }
        }
        for look in looks.iter() {
            if let Look::There(at) = look {
                volumes[at.volume].holds = true;
            }
        }
    }

    fn finish(
        &self,
        volumes: Vec<Volume<'a>>,
        looks: Vec<Look>,
        unclear: Option<String>,
    ) -> Option<(SourceTrees, Value)> {
        // The one that has most paths, as they are named; the first of several.
        let count = |volume| {
            let has = |(look, path): &(&Look, &PathBuf)| match look {
                Look::There(at) => at.volume == volume && at.hit.rest == **path,
                _ => false,
            };
            looks.iter().zip(self.request.paths).filter(has).count()
        };
        let main = (0..volumes.len()).rev().max_by_key(|&volume| count(volume)).unwrap_or(0);
        let main_tree = looks.iter().find_map(|look| match look {
            Look::There(at) if at.volume == main => Some(at.hit.tree.clone()),
            _ => None,
        });
        let mut shown = Vec::new();
        let mut device = None;
        let mut passing = None;
        let mut top = PathBuf::new();
        for (index, volume) in volumes.into_iter().enumerate() {
            let Volume { candidate, mounted, trees, holds } = volume;
            let mut stale = !mounted.replayed || trees.default_unknown;
            if index == main {
                let it = self.show(mounted);
                stale |= !it.replayed;
                device = Some(self.describe(candidate, &it));
                passing = it.passing;
                top.clone_from(&it.point);
                shown.push((it.point, stale));
            } else if holds {
                let point = PathBuf::from(format!("({})", candidate.label(self.name)));
                stale |= !mounted.keep(&point).replayed;
                shown.push((point, stale));
            } else {
                mounted.discard();
                shown.push((PathBuf::new(), stale));
            }
        }
        let device = device?;
        let main_tree = main_tree.unwrap_or_default();
        let top = below(&top, &main_tree);
        if !main_tree.as_os_str().is_empty() {
            info!("the restore set is below {}", escape(&top));
        }
        let mut found = Vec::new();
        for (path, look) in self.request.paths.iter().zip(looks) {
            let place = match look {
                Look::There(At { volume, hit }) => {
                    let from = below(&below(&shown[volume].0, &hit.tree), &hit.rest);
                    if from != below(&top, path) {
                        info!("{} is at {}", escape(path), escape(&from));
                    }
                    // An earlier tree may lack a path for want of its journal.
                    let stale = shown[..=volume].iter().any(|(_, stale)| *stale);
                    TreePlace::Here(FoundTree { dir: hit.dir.shown_as(&from), shown: from, stale })
                }
                Look::Unknown(error) => TreePlace::Unknown(error),
                Look::Missing => match &unclear {
                    Some(reason) => TreePlace::Unknown(Error::on("look for", path, reason.clone())),
                    None => TreePlace::Absent { stale: shown.iter().any(|(_, stale)| *stale) },
                },
            };
            found.push((path.clone(), place));
        }
        Some((SourceTrees::new(top, found, passing), device))
    }

    /// Puts the mount at the place it is wanted at.
    fn show(&self, mounted: MountedVolume) -> ShownMount {
        let shown = match self.place {
            Some(place) => mounted.show_at(place),
            None => mounted.keep(&Path::new("/").join(self.request.mount_point)),
        };
        info!("mounted {} at {} (ro)", self.name, escape(&shown.point));
        shown
    }

    /// For the report.
    fn describe(&self, candidate: &CandidateFs<'_>, shown: &ShownMount) -> Value {
        json!({
            "requested": self.request.device.to_string_lossy(),
            "device": self.located.device.shown().to_string_lossy(),
            "found_by": self.located.why,
            "partition": candidate.partition,
            "fstype": candidate.fstype,
            "uuid": candidate.uuid,
            "journal_replayed": shown.replayed,
            "mount_point": shown.point.to_string_lossy(),
        })
    }
}

/// Finds `path` on a volume that was mounted on one of the directories above it, or on it. Only its
/// name can tell that a volume was mounted on the path itself.
fn below_mount_point(
    volume: &Volume<'_>,
    path: &Path,
) -> molecule_tools::error::Result<Option<SubvolumeHit>> {
    let mut rest = path.components();
    while let Some(component) = rest.next() {
        let rest = rest.as_path();
        let named = || {
            let names = volume.candidate.names.iter().flatten();
            names.into_iter().any(|name| component.as_os_str().eq_ignore_ascii_case(name))
        };
        if rest.as_os_str().is_empty() && !named() {
            continue;
        }
        if let Some(hit) = volume.trees.find_in_first(&volume.mounted.root, rest)? {
            return Ok(Some(hit));
        }
    }
    Ok(None)
}
