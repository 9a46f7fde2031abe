//! A clone from a server that demands the credential, over TLS, in an image without the shell scripts and without
//! the programs they needed; and TLS to the platform itself.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use super::{BEARER, SHORT, get, long_token, password, refusal, sandbox};
use crate::support::platform::{Platform, grant};
use crate::support::sandbox::{PROGRAM_INSIDE, Sandbox};
use crate::support::server::{own_address, read_head};
use crate::support::tls::{Connection, TlsServer};
use crate::support::{Case, Need, ok, test_case};

pub fn cases() -> Vec<Case> {
    const ALL: &[Need] = &[Need::Root, Need::Program("git"), Need::Program("openssl")];
    const TLS: &[Need] = &[Need::Root, Need::Program("openssl")];
    vec![
        test_case!(git_clones_where_there_is_neither_a_script_nor_curl, ALL),
        test_case!(the_platform_is_asked_over_tls, TLS),
        test_case!(a_platform_with_another_certificate_sees_no_bearer, TLS),
    ]
}

/// The host of the server that stands for github.com.
const GITHUB: u8 = 73;

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// Answers one request as a server of git's smart protocol does (git-http-backend(1)), for whoever says
/// `authorization`.
fn serve(projects: &Path, authorization: &str, stream: &mut dyn Connection) {
    let head = read_head(stream);
    let length = header(&head, "content-length").and_then(|length| length.parse().ok());
    let length: usize = length.unwrap_or(0);
    if head.is_empty() {
        return;
    }
    if header(&head, "authorization") != Some(authorization) {
        let refusal = "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"GitHub\"\r\n\
            Content-Length: 0\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(refusal.as_bytes());
        return;
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    let mut words = head.split(' ');
    let (method, target) = (words.next().unwrap(), words.next().unwrap());
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut backend = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", projects)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .envs([("REQUEST_METHOD", method), ("PATH_INFO", path), ("QUERY_STRING", query)])
        .env("CONTENT_TYPE", header(&head, "content-type").unwrap_or_default())
        .env("CONTENT_LENGTH", length.to_string())
        .env("GIT_PROTOCOL", header(&head, "git-protocol").unwrap_or_default())
        .env("HTTP_CONTENT_ENCODING", header(&head, "content-encoding").unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    backend.stdin.take().unwrap().write_all(&body).unwrap();
    let output = backend.wait_with_output().unwrap().stdout;
    let end = output.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let length = output.len() - end - 4;
    let status = format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n");
    let _ = stream.write_all(&[status.as_bytes(), &output].concat());
}

fn base64(text: &str) -> String {
    let mut encode = Command::new("base64")
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    encode.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    String::from_utf8(encode.wait_with_output().unwrap().stdout).unwrap()
}

fn git_clones_where_there_is_neither_a_script_nor_curl() {
    let projects = tempfile::tempdir().unwrap();
    let make = "git init -q work; cd work; echo content > file; git add file
        git -c user.name=x -c user.email=x@x commit -qm x; cd ..; git clone -q --bare work org/project.git";
    ok(Command::new("sh").args(["-euc", make]).current_dir(projects.path()));
    let authorization = format!("Basic {}", base64(&format!("x-access-token:{}", long_token())));
    let root = projects.path().to_owned();
    let github =
        TlsServer::new(&format!("{}:443", own_address(GITHUB)), "github.com", move |stream| {
            serve(&root, &authorization, stream)
        });
    let platform = Platform::always(grant(&long_token(), 3600));
    // Neither the programs that the scripts ran, nor a helper of git's own, nor libcurl's program.
    let sandbox = Sandbox::with(&format!(
        ": > nothing; for name in bash curl sed mktemp wget python3; do
             for place in /usr/bin /bin /usr/local/bin; do
                 [ ! -e $ROOT$place/$name ] || mount --bind nothing $ROOT$(readlink -f $place/$name)
             done
         done
         cp {} etc/authority.pem",
        github.authority.display()
    ));
    let address = own_address(GITHUB);
    sandbox.sh(&format!(
        "echo {BEARER} > /configs/.auth_token; echo '{address} github.com' > /etc/hosts
         for name in bash curl sed mktemp; do ! $name --version > /dev/null 2>&1; done; chmod 1777 /tmp"
    ));
    let runtime = "#!/bin/sh\nexec git clone -q https://github.com/org/project.git /tmp/clone\n";
    sandbox.install("/usr/local/bin/molecule-runtime", runtime);
    let boot = sandbox.program().arg("entrypoint").env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true");
    let boot = boot.env("PLATFORM_URL", platform.url()).env("WORKSPACE_ID", "w-1");
    let boot = boot.env("GIT_SSL_CAINFO", "/etc/authority.pem").env("GIT_TERMINAL_PROMPT", "0");
    let outcome = boot.run();
    assert_eq!(outcome.status, 0, "{outcome:?}");
    assert_eq!(sandbox.sh("cat /tmp/clone/file; stat -c %U /tmp/clone/file"), "content\nagent\n");
    assert_eq!(platform.asked().len(), 1);
    let helper =
        sandbox.sh("HOME=/home/agent git config --global credential.https://github.com.helper");
    assert_eq!(helper, format!("!{PROGRAM_INSIDE} git-credential-molecule\n"));
}

/// A platform by https that knows no path, and what it was asked.
fn platform(host: &str) -> (TlsServer, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let heads = asked.clone();
    let server = TlsServer::new("127.0.0.1:0", host, move |stream| {
        let head = read_head(stream);
        if !head.is_empty() {
            heads.lock().unwrap().push(head);
            let _ = stream.write_all(&grant(SHORT, 3600));
        }
    });
    (server, asked)
}

fn the_platform_is_asked_over_tls() {
    let (server, asked) = platform("platform.example");
    let plain = Platform::always(Vec::new());
    let sandbox = sandbox();
    std::fs::copy(&server.authority, sandbox.path("/etc/authority.pem")).unwrap();
    sandbox.sh("echo '127.0.0.1 platform.example' > /etc/hosts; chmod 644 /etc/authority.pem");
    let url = format!("https://platform.example:{}", server.address().port());
    let run =
        get(&sandbox, &plain).env("PLATFORM_URL", url).env("SSL_CERT_FILE", "/etc/authority.pem");
    assert_eq!(password(&run.run()).0, SHORT);
    assert!(asked.lock().unwrap()[0].contains(BEARER));
}

fn a_platform_with_another_certificate_sees_no_bearer() {
    let (server, asked) = platform("platform.example");
    let plain = Platform::always(Vec::new());
    let sandbox = sandbox();
    std::fs::copy(&server.authority, sandbox.path("/etc/authority.pem")).unwrap();
    sandbox.sh("printf '127.0.0.1 platform.example\\n127.0.0.1 other.example\\n' > /etc/hosts; : > /etc/none.pem
        chmod 644 /etc/authority.pem");
    let port = server.address().port();
    for (host, authority, said) in [
        // The system's, or those that are built in: not this one.
        ("platform.example", None, "invalid peer certificate: UnknownIssuer"),
        ("other.example", Some("/etc/authority.pem"), "certificate not valid for name"),
        ("platform.example", Some("/etc/none.pem"), "SSL_CERT_FILE holds no certificate"),
    ] {
        let run = get(&sandbox, &plain).env("PLATFORM_URL", format!("https://{host}:{port}"));
        let run = match authority {
            Some(file) => run.env("SSL_CERT_FILE", file),
            None => run,
        };
        let line = refusal(&run.run());
        assert!(line.contains(said), "{line}");
    }
    let run = get(&sandbox, &plain).env("PLATFORM_URL", format!("https://{}", plain.address()));
    refusal(&run.run());
    assert!(asked.lock().unwrap().is_empty());
}
