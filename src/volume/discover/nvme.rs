//! An NVMe controller's record of itself: Identify Controller (NVM Express Base Specification,
//! Identify command, CNS 01h) and the field in which EC2 puts the name a volume was attached under.
#![forbid(unsafe_code)]

use std::os::fd::AsFd;

use rustix::io::Errno;

use crate::volume::ioctl::{IDENTIFY_LENGTH, nvme_identify};
use crate::volume::look::again;

/// The part of an Identify Controller page that identifies the volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControllerRecord {
    /// Model number, padding removed.
    pub model: String,
    /// Serial number, padding removed; EC2: the volume id without its dash.
    pub serial: String,
    /// The device name the volume was attached under, without `/dev/`; only EBS volumes have it.
    pub requested: Option<String>,
}

/// PCI vendor id of Amazon.
const AMAZON: [u8; 2] = [0x0f, 0x1d];
/// Model number of EBS volumes.
pub const EBS_MODEL: &str = "Amazon Elastic Block Store";

impl ControllerRecord {
    /// Reads the page; `None` if it is too short. Any bytes will do.
    pub fn parse(page: &[u8]) -> Option<Self> {
        let serial = text(page.get(4..24)?);
        let model = text(page.get(24..64)?);
        let name = text(page.get(3072..3104)?);
        let ours = page.get(..2)? == AMAZON && model == EBS_MODEL;
        let name = name.strip_prefix("/dev/").unwrap_or(&name);
        let plain = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric());
        Some(Self { requested: (ours && plain).then(|| name.to_owned()), model, serial })
    }
}

/// Text padded with spaces or NUL; nothing after a NUL counts.
fn text(field: &[u8]) -> String {
    let end = field.iter().position(|&byte| byte == 0).unwrap_or(field.len());
    String::from_utf8_lossy(&field[..end]).trim().to_owned()
}

/// Asks the controller of an open NVMe namespace; `None` if it is no NVMe device, or does not answer
/// this caller (kernels before 6.2 want CAP_SYS_ADMIN). An error if it might at another time.
pub fn identify(device: impl AsFd) -> Result<Option<ControllerRecord>, Errno> {
    let mut page = Box::new([0_u8; IDENTIFY_LENGTH]);
    match again(|| nvme_identify(&device, &mut page)) {
        // A refused command leaves the page empty.
        Ok(()) => {
            Ok(ControllerRecord::parse(&page[..]).filter(|identify| !identify.model.is_empty()))
        }
        Err(errno @ (Errno::IO | Errno::NOMEM | Errno::AGAIN | Errno::BUSY)) => Err(errno),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn page(vendor: u16, serial: &str, model: &str, name: &[u8]) -> Vec<u8> {
        let mut page = vec![0; IDENTIFY_LENGTH];
        page[..2].copy_from_slice(&vendor.to_le_bytes());
        page[4..24].copy_from_slice(format!("{serial:<20}").as_bytes());
        page[24..64].copy_from_slice(format!("{model:<40}").as_bytes());
        page[3072..3072 + name.len()].copy_from_slice(name);
        page
    }

    #[test]
    fn ec2_pages_tell_volume_and_requested_name() {
        let serial = "vol0fe1d2c3b4a596878";
        for (bytes, expected) in [
            (&b"/dev/xvdb                       "[..], Some("xvdb")),
            (b"sdb\0\0\0", Some("sdb")),
            (b"xvdb   \0junk", Some("xvdb")),
            (b"", None),
            (b"   ", None),
            (b"../../etc", None),
            (b"/dev/", None),
            (b"\xff\xfe", None),
        ] {
            let identify =
                ControllerRecord::parse(&page(0x1d0f, serial, EBS_MODEL, bytes)).unwrap();
            assert_eq!(identify.requested.as_deref(), expected, "{bytes:?}");
            assert_eq!((&*identify.serial, &*identify.model), (serial, EBS_MODEL));
        }
    }

    #[test]
    fn other_vendors_and_instance_storage_have_no_requested_name() {
        let storage = "Amazon EC2 NVMe Instance Storage";
        for page in [page(0x8086, "S1", EBS_MODEL, b"xvdb"), page(0x1d0f, "AWS1", storage, b"xvdb")]
        {
            assert_eq!(ControllerRecord::parse(&page).unwrap().requested, None);
        }
        assert_eq!(ControllerRecord::parse(&[0; 3103]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed(mut bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = ControllerRecord::parse(&bytes);
            bytes.resize(IDENTIFY_LENGTH, 0xa5);
            prop_assert!(ControllerRecord::parse(&bytes).is_some());
        }
    }
}
