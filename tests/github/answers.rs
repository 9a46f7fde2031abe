//! What the platform may answer, and what it is asked.

use std::io::Write as _;
use std::time::{Duration, Instant};

use super::{BEARER, SHORT, agent, get, long_token, now, password, refusal, sandbox, text};
use crate::support::platform::{Platform, grant, reply};
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    let root = &[Need::Root];
    vec![
        test_case!(a_token_is_answered_with_its_end, root),
        test_case!(the_request_is_what_the_platform_wants, root),
        test_case!(a_refusal_is_one_line_without_a_word_of_the_answer, root),
        test_case!(a_bearer_that_was_replaced_is_read_again, root),
        test_case!(a_bearer_that_is_still_empty_is_waited_for, root),
        test_case!(the_bearer_is_looked_for_where_it_may_be, root),
        test_case!(a_bearer_that_is_no_file_or_no_token_is_not_sent, root),
        test_case!(a_platform_that_does_not_answer_takes_no_longer_than_its_time, root),
        test_case!(a_busy_platform_is_left_alone, root),
        test_case!(the_end_goes_by_the_platforms_clock, root),
        test_case!(settings_of_another_form_are_told, root),
        test_case!(no_proxy_sees_the_request, root),
    ]
}

fn a_token_is_answered_with_its_end() {
    for token in [SHORT.to_owned(), long_token()] {
        let sandbox = sandbox();
        let platform = Platform::always(grant(&token, 3600));
        let (answered, expiry) = password(&get(&sandbox, &platform).run());
        assert_eq!(answered, token);
        assert!((2990..=3000).contains(&(expiry - now())), "{}", expiry - now());
    }
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 400));
    let (_, expiry) = password(&get(&sandbox, &platform).run());
    assert!((300..=340).contains(&(expiry - now())), "{}", expiry - now());
}

fn the_request_is_what_the_platform_wants() {
    let platform = Platform::always(grant(SHORT, 3600));
    for (id, path) in [
        ("w-1", "/workspaces/w-1/github-installation-token"),
        ("", "/admin/github-installation-token"),
    ] {
        let sandbox = sandbox();
        let run = get(&sandbox, &platform).env("WORKSPACE_ID", id).env("MOLECULE_ORG_ID", "org-7");
        let run = run.env("PLATFORM_URL", format!("{}/", platform.url()));
        password(&run.run());
        let asked = platform.asked().pop().unwrap();
        let lines: Vec<&str> = asked.trim_end().split("\r\n").collect();
        assert_eq!(lines[0], format!("GET {path} HTTP/1.1"));
        for line in [
            format!("Host: {}", platform.address()),
            format!("Authorization: Bearer {BEARER}"),
            "Accept: application/json".into(),
            format!("User-Agent: molecule-tools/{}", env!("CARGO_PKG_VERSION")),
            format!("Origin: {}", platform.url()),
            "X-Molecule-Org-Id: org-7".into(),
        ] {
            assert_eq!(lines.iter().filter(|other| **other == line).count(), 1, "{line}\n{asked}");
        }
    }
    let fresh = sandbox();
    password(&get(&fresh, &platform).run());
    assert!(!platform.asked().pop().unwrap().contains("X-Molecule-Org-Id"));
}

fn a_refusal_is_one_line_without_a_word_of_the_answer() {
    let canary = r#"{"token_": "ghs_CANARY", "error": "CANARY\u001b[31m"}"#;
    let large = format!(r#"{{"token": "ghs_CANARY{}"}}"#, "x".repeat(70_000));
    let org = r#"{"code": "TENANT_ORG_HEADER_REQUIRED"}"#;
    let mut cut = grant("ghs_CANARY", 3600);
    cut.truncate(cut.len() - 10);
    for (answer, said) in [
        (reply(400, &[], canary), "status 400"),
        (reply(400, &[], org), "set MOLECULE_ORG_ID"),
        (reply(401, &[], canary), "status 401"),
        (reply(403, &[], canary), "status 403"),
        (reply(404, &[], canary), "status 404"),
        (reply(429, &[], canary), "status 429"),
        (reply(500, &[], canary), "status 500"),
        (reply(522, &[], canary), "status 522"),
        (reply(302, &["Location: http://127.0.0.1:1/"], canary), "redirects are not followed"),
        (reply(200, &[], "CANARY"), "it is no JSON"),
        (reply(200, &[], canary), "it has no token"),
        (reply(200, &[], r#"{"token": "ghs_CANARY\nhost=evil"}"#), "what it calls token is none"),
        (reply(200, &[], &large), "larger than 64 KiB"),
        (cut, "ended too early"),
        (b"HTTP/1.1 200 OK\r\nContent-".to_vec(), "ended in its head"),
        (Vec::new(), "ended in its head"),
        (b"CANARY\r\n\r\n".to_vec(), "does not speak HTTP/1.1"),
        (grant("ghs_CANARY", -5), ""),
    ] {
        let sandbox = sandbox();
        let answer = match said {
            "" => {
                [&b"HTTP/1.1 200 OK\r\nDate: Thu, 26 Nov 2099 10:00:00 GMT\r\n"[..], &answer[16..]]
                    .concat()
            }
            _ => answer,
        };
        let platform = Platform::always(answer);
        let line = refusal(&get(&sandbox, &platform).run());
        assert!(
            line.contains(said) && !line.contains("CANARY") && line.len() < 500,
            "{said}: {line}"
        );
        let asked = if said == "status 401" { 2 } else { 1 };
        assert_eq!(platform.asked().len(), asked, "{said}");
        assert_eq!(sandbox.sh("find / -xdev -name 'gh_installation_token*'"), "", "{said}");
    }
    let fresh = sandbox();
    let gone = Platform::always(Vec::new());
    let run = get(&fresh, &gone).env("PLATFORM_URL", "http://127.0.0.1:1");
    assert!(refusal(&run.run()).contains("Connection refused"));
}

fn a_bearer_that_was_replaced_is_read_again() {
    let sandbox = sandbox();
    let path = sandbox.path("/configs/.auth_token");
    let platform = Platform::new(move |number, head, stream| {
        std::fs::write(&path, "second\n").unwrap();
        let right = head.contains("Authorization: Bearer second\r\n");
        assert_eq!(right, number > 0);
        let answer = if right { grant(SHORT, 3600) } else { reply(401, &[], "") };
        let _ = stream.write_all(&answer);
    });
    assert_eq!(password(&get(&sandbox, &platform).run()).0, SHORT);
    assert_eq!(platform.asked().len(), 2);
}

fn a_bearer_that_is_still_empty_is_waited_for() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    sandbox.sh(": > /configs/.auth_token");
    let started = get(&sandbox, &platform).start();
    std::thread::sleep(Duration::from_millis(300));
    std::fs::write(sandbox.path("/configs/.auth_token"), "late\n").unwrap();
    assert_eq!(password(&started.wait()).0, SHORT);
    let empty = super::sandbox();
    empty.sh(": > /configs/.auth_token");
    let line = refusal(&get(&empty, &platform).run());
    assert_eq!(line, "read the bearer in /configs/.auth_token: it is still empty");
    assert_eq!(platform.asked().len(), 1);
}

fn the_bearer_is_looked_for_where_it_may_be() {
    let platform = Platform::always(grant(SHORT, 3600));
    let sandbox = sandbox();
    sandbox.sh("mkdir /other /home/agent/.molecule-workspace; echo other > /other/.auth_token
        echo home > /home/agent/.molecule-workspace/.auth_token");
    for (take_away, bearer) in
        [("true", "other"), ("rm /other/.auth_token", BEARER), ("rm /configs/.auth_token", "home")]
    {
        sandbox.sh(&format!("{take_away}; rm -rf {}", super::CACHE));
        password(&get(&sandbox, &platform).env("CONFIGS_DIR", "/other").run());
        let asked = platform.asked().pop().unwrap();
        assert!(asked.contains(&format!("Authorization: Bearer {bearer}\r\n")), "{asked}");
    }
    sandbox.sh(&format!("rm -rf /home/agent/.molecule-workspace {}", super::CACHE));
    let line = refusal(&get(&sandbox, &platform).run());
    assert!(
        line.starts_with("read the bearer: no .auth_token in /configs, /home/agent/.mol"),
        "{line}"
    );
}

fn a_bearer_that_is_no_file_or_no_token_is_not_sent() {
    let platform = Platform::always(grant(SHORT, 3600));
    for (plant, said) in [
        ("echo secret > /tmp/secret; ln -s /tmp/secret .auth_token", "it is a symbolic link"),
        ("mkfifo .auth_token; chown agent .auth_token", "it is a fifo"),
        ("mkdir .auth_token", "it is a directory"),
        ("printf 'a\\0b' > .auth_token", "it is no token"),
        ("head -c 9000 /dev/zero | tr '\\0' x > .auth_token", "it is too long for a token"),
    ] {
        let sandbox = sandbox();
        sandbox.sh(&format!("cd /configs; rm .auth_token; {plant}"));
        let line = refusal(&get(&sandbox, &platform).run());
        assert!(line.contains(said), "{said}: {line}");
    }
    assert!(platform.asked().is_empty());
}

fn a_platform_that_does_not_answer_takes_no_longer_than_its_time() {
    for drip in [false, true] {
        let sandbox = sandbox();
        let platform = Platform::new(move |_, _, stream| {
            let begin = Instant::now();
            // A byte now and then keeps every single read from being slow.
            while begin.elapsed() < Duration::from_secs(60) {
                let sent = if drip { stream.write_all(b"H") } else { Ok(()) };
                if sent.is_err() {
                    return;
                }
                std::thread::sleep(Duration::from_millis(300));
            }
        });
        let begin = Instant::now();
        let line = refusal(&get(&sandbox, &platform).run());
        // Bytes that are no head end it sooner.
        assert!(drip || line.contains("no complete answer within 10 s"), "{line}");
        assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
    }
    let sandbox = sandbox();
    let platform = Platform::new(|_, _, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b" ").is_ok() {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let line = refusal(&get(&sandbox, &platform).run());
    assert!(line.contains("no complete answer within 10 s"), "{line}");
}

fn a_busy_platform_is_left_alone() {
    let sandbox = sandbox();
    let platform = Platform::new(|number, _, stream| {
        let answer = match number {
            0 => reply(429, &["Retry-After: 2"], ""),
            _ => grant(SHORT, 3600),
        };
        let _ = stream.write_all(&answer);
    });
    assert!(refusal(&get(&sandbox, &platform).run()).contains("status 429"));
    let line = refusal(&get(&sandbox, &platform).run());
    assert!(line.contains("the platform asks to be left alone for"), "{line}");
    assert_eq!(platform.asked().len(), 1);
    std::thread::sleep(Duration::from_millis(2100));
    assert_eq!(password(&get(&sandbox, &platform).run()).0, SHORT);
}

fn the_end_goes_by_the_platforms_clock() {
    let sandbox = sandbox();
    let body = format!(r#"{{"token": "{SHORT}", "expires_at": "2031-05-05T10:10:00.5+02:00"}}"#);
    let platform = Platform::always(reply(200, &["Date: Mon, 05 May 2031 08:00:00 GMT"], &body));
    let (_, expiry) = password(&get(&sandbox, &platform).run());
    // Ten minutes by that clock, less the margin.
    assert!((500..=510).contains(&(expiry - now())), "{}", expiry - now());
}

fn settings_of_another_form_are_told() {
    let platform = Platform::always(grant(SHORT, 3600));
    for (name, value, said) in [
        (
            "WORKSPACE_ID",
            "../../admin",
            "use WORKSPACE_ID ../../admin: it is no name of lower-case",
        ),
        ("PLATFORM_URL", "ftp://x", "as the platform's URL: its scheme is neither http nor https"),
        ("PLATFORM_URL", "http://u:CANARY\x01@x", "it has a character that no URL has"),
        ("MOLECULE_ORG_ID", "a\r\nEvil: x", "use MOLECULE_ORG_ID: it has white space"),
    ] {
        let line = refusal(&get(&sandbox(), &platform).env(name, value).run());
        assert!(line.contains(said), "{line}");
    }
    assert!(platform.asked().is_empty());
}

fn no_proxy_sees_the_request() {
    let sandbox = sandbox();
    let platform = Platform::always(grant(SHORT, 3600));
    let proxy = Platform::always(grant("ghs_OTHER", 3600));
    let names = ["http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let run = get(&sandbox, &platform).envs(names.map(|name| (name, proxy.url())));
    assert_eq!(password(&run.run()).0, SHORT);
    assert!(proxy.asked().is_empty());
    let status = agent(&sandbox, &platform).args(["token-refresh", "--status"]).run();
    assert!(!text(&sandbox, super::TOKEN).is_empty() && status.status == 0, "{status:?}");
}
