//! The platform's name: from the hosts file and by DNS, in a static program, whatever the image says of name services.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{SHORT, get, password, refusal, sandbox};
use crate::support::platform::{Platform, grant};
use crate::support::server::own_address;
use crate::support::{Case, Need, Stop, test_case};

pub fn cases() -> Vec<Case> {
    let root = &[Need::Root];
    vec![
        test_case!(the_name_is_found_in_the_hosts_file, root),
        test_case!(the_name_is_found_by_dns, root),
        test_case!(a_name_server_that_is_silent_takes_no_longer_than_the_time, root),
    ]
}

const NAME: &str = "host.docker.internal";
/// The host of the name server; its port, 53, cannot be chosen in resolv.conf(5).
const SERVER: u8 = 71;
/// One that is silent.
const SILENT: u8 = 72;

fn the_name_is_found_in_the_hosts_file() {
    let platform = Platform::always(grant(SHORT, 3600));
    let url = format!("http://{NAME}:{}", platform.address().port());
    for services in
        ["", "hosts: mymachines mdns4_minimal [NOTFOUND=return] resolve\n", "hosts: dns\n"]
    {
        let sandbox = sandbox();
        sandbox.sh(&format!(
            "printf '127.0.0.1\\t{NAME}\\n' > /etc/hosts; printf '{services}' > /etc/nsswitch.conf"
        ));
        assert_eq!(password(&get(&sandbox, &platform).env("PLATFORM_URL", &url).run()).0, SHORT);
    }
    let run = get(&sandbox(), &platform)
        .env("PLATFORM_URL", format!("http://localhost:{}", platform.address().port()));
    let outcome = run.run();
    assert!(
        outcome.status == 0 || outcome.stderr().contains("is not known to /etc/hosts or DNS"),
        "{outcome:?}"
    );
}

/// The answer of a name server to `query` (RFC 1035, 4): 127.0.0.1 for every question about an IPv4 address,
/// and nothing for others.
fn answer(query: &[u8]) -> Vec<u8> {
    let name = query[12..].iter().position(|&byte| byte == 0).unwrap() + 13;
    let wants_address = query[name..name + 2] == [0, 1];
    let mut answer = query[..name + 4].to_vec();
    answer[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(wants_address), 0, 0, 0, 0]);
    if wants_address {
        answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 127, 0, 0, 1]);
    }
    answer
}

fn the_name_is_found_by_dns() {
    let platform = Platform::always(grant(SHORT, 3600));
    let socket = UdpSocket::bind((own_address(SERVER), 53)).expect("a port for the name server");
    socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let _stop = Stop(&over);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut query = [0; 512];
            while !over.load(Ordering::Relaxed) {
                if let Ok((length, client)) = socket.recv_from(&mut query) {
                    socket.send_to(&answer(&query[..length]), client).unwrap();
                }
            }
        });
        let _end = Stop(&over);
        let sandbox = sandbox();
        let address = own_address(SERVER);
        sandbox.sh(&format!("echo 'nameserver {address}' > /etc/resolv.conf; echo '127.0.0.1 localhost' > /etc/hosts
            echo 'hosts: files' > /etc/nsswitch.conf"));
        let url = format!("http://{NAME}:{}", platform.address().port());
        assert_eq!(password(&get(&sandbox, &platform).env("PLATFORM_URL", url).run()).0, SHORT);
    });
}

fn a_name_server_that_is_silent_takes_no_longer_than_the_time() {
    let platform = Platform::always(grant(SHORT, 3600));
    let _socket = UdpSocket::bind((own_address(SILENT), 53)).expect("a port for the name server");
    let sandbox = sandbox();
    let address = own_address(SILENT);
    sandbox.sh(&format!("echo 'nameserver {address}' > /etc/resolv.conf; echo > /etc/hosts"));
    let begin = std::time::Instant::now();
    let line =
        refusal(&get(&sandbox, &platform).env("PLATFORM_URL", format!("http://{NAME}")).run());
    assert!(line.contains("no complete answer within 10 s"), "{line}");
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
}
