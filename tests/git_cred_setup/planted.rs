//! What an agent can plant before a boot: nothing of it is followed, disclosed or executed by root.

use super::{AGENTS, ROOTS, helper, is_set, setup, succeeded, text, warning, write};
use crate::support::sandbox::Sandbox;
use crate::support::{Case, Need, test_case};

pub fn cases() -> Vec<Case> {
    let needs = &[Need::Root, Need::Program("git")];
    vec![
        test_case!(a_link_is_refused_and_its_target_untouched, needs),
        test_case!(what_is_no_file_is_refused_without_waiting, needs),
        test_case!(a_linked_home_is_refused, needs),
        test_case!(a_hard_linked_file_is_replaced_and_its_other_name_untouched, needs),
        test_case!(a_file_the_agent_may_not_read_is_not_disclosed, needs),
        test_case!(roots_file_in_a_directory_of_others_is_not_copied, needs),
        test_case!(includes_aliases_hooks_and_repositories_are_not_executed, needs),
        test_case!(an_include_does_not_count_as_set, needs),
        test_case!(a_git_that_others_can_change_is_not_run_by_root, needs),
    ]
}

fn a_link_is_refused_and_its_target_untouched() {
    let sandbox = Sandbox::new();
    for target in ["/etc/canary", "/root/canary", "/nowhere/at-all", ".gitconfig"] {
        sandbox.sh(&format!(
            "printf '[user]\\n\\tname = canary\\n' | tee /etc/canary > /root/canary
             chmod 600 /etc/canary; rm -f {AGENTS}; ln -s {target} {AGENTS}; chown -h agent {AGENTS}"
        ));
        let state = "stat -c '%n %a %u %i %y %z' /etc/canary /root/canary; cat /etc/canary";
        let before = sandbox.sh(state);
        let said = warning(&setup(&sandbox).run());
        let reason = "it is a symbolic link, not followed; put a real directory or file there";
        assert_eq!(said, format!("open {AGENTS}: {reason}"));
        assert_eq!(sandbox.sh(state), before);
        assert_eq!(sandbox.sh(&format!("readlink {AGENTS}")), format!("{target}\n"));
        assert!(!sandbox.path("/nowhere").exists());
        is_set(&sandbox, "/root");
    }
}

fn what_is_no_file_is_refused_without_waiting() {
    let sandbox = Sandbox::new();
    for (make, noun) in [
        ("mkfifo", "a fifo"),
        ("mkdir", "a directory"),
        ("mknod -m 666 $PLACE c 1 5 #", "a character device"),
        (
            "perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0);bind(S,sockaddr_un($ARGV[0]))or die'",
            "No such device or address",
        ),
    ] {
        sandbox
            .sh(&format!("rm -rf {AGENTS}; PLACE={AGENTS}; {make} {AGENTS}\nchown agent {AGENTS}"));
        let said = warning(&setup(&sandbox).run());
        assert!(said.contains(AGENTS) && said.contains(noun), "{said}");
        is_set(&sandbox, "/root");
    }
}

fn a_linked_home_is_refused() {
    let sandbox = Sandbox::new();
    sandbox.sh("mv /home/agent /home/real; mkdir /root/trap; ln -s /root/trap /home/agent");
    let said = warning(&setup(&sandbox).run());
    assert!(said.contains("/home/agent: it is a symbolic link, not followed"), "{said}");
    assert_eq!(sandbox.sh("ls -A /root/trap /home/real"), "/home/real:\n\n/root/trap:\n");
}

fn a_hard_linked_file_is_replaced_and_its_other_name_untouched() {
    let sandbox = Sandbox::new();
    sandbox.sh(&format!(
        "printf '[user]\\n\\tname = canary\\n' > /home/canary; chmod 644 /home/canary
         ln /home/canary {AGENTS}"
    ));
    let state = "stat -c '%a %u %i %y' /home/canary; cat /home/canary";
    let before = sandbox.sh(state);
    succeeded(&setup(&sandbox).run());
    assert_eq!(sandbox.sh(state), before);
    assert_eq!(sandbox.sh(&format!("stat -c '%h %U' {AGENTS}")), "1 agent\n");
    is_set(&sandbox, "/home/agent");
}

fn a_file_the_agent_may_not_read_is_not_disclosed() {
    for plant in ["mv", "ln"] {
        for mode in ["600", "640"] {
            let sandbox = Sandbox::new();
            sandbox.sh(&format!(
                "printf '[user]\\n\\tpassword = canary\\n' > /home/secret; chmod {mode} /home/secret
                 {plant} /home/secret {AGENTS}"
            ));
            let said = warning(&setup(&sandbox).run());
            assert!(
                said.contains("it is somebody else's, and the agent may not read it"),
                "{said}"
            );
            assert_eq!(sandbox.sh(&format!("stat -c '%a %U' {AGENTS}")), format!("{mode} root\n"));
        }
    }
}

/// Root's HOME may lie where the agent writes; what lies there need not be root's to give away.
fn roots_file_in_a_directory_of_others_is_not_copied() {
    let sandbox = Sandbox::new();
    let secret = "[user]\n\tpassword = canary\n";
    for arrange in ["chown agent /workspace", "chown root /workspace; chmod 777 /workspace"] {
        sandbox.sh(&format!("{arrange}; rm -f {AGENTS}"));
        write(&sandbox, "/workspace/.gitconfig", secret);
        succeeded(&setup(&sandbox).env("HOME", "/workspace").run());
        is_set(&sandbox, "/home/agent");
        assert!(!text(&sandbox, AGENTS).contains("canary"), "{arrange}");
        assert!(text(&sandbox, "/workspace/.gitconfig").starts_with(secret), "{arrange}");
    }
}

fn includes_aliases_hooks_and_repositories_are_not_executed() {
    let sandbox = Sandbox::new();
    sandbox.install("/tmp/evil", "#!/bin/sh\necho \"$0 $*\" >> /tmp/executed\n");
    let own = "[alias]\n\tconfig = !/tmp/evil alias\n\tst = !/tmp/evil\n\
               [include]\n\tpath = /tmp/fifo\n[includeIf \"gitdir:/\"]\n\tpath = /tmp/fifo\n\
               [core]\n\tpager = /tmp/evil pager\n\teditor = /tmp/evil editor\n\tfsmonitor = /tmp/evil\n\
               \thooksPath = /tmp\n\tsshCommand = /tmp/evil\n[pager]\n\tconfig = /tmp/evil\n\
               [trace2]\n\teventTarget = /tmp/executed\n[init]\n\ttemplateDir = /tmp\n";
    sandbox.sh("mkfifo /tmp/fifo; chown agent /tmp/fifo");
    write(&sandbox, AGENTS, own);
    // A repository in the home and above it, as git would find one.
    for place in ["/home/agent", "/home", "/run"] {
        sandbox.sh(&format!("cd {place}; HOME=/nowhere git init -q"));
        write(&sandbox, &format!("{place}/.git/config"), own);
    }
    let hostile = [
        ("GIT_DIR", "/home/agent/.git"),
        ("GIT_CONFIG_GLOBAL", AGENTS),
        ("GIT_CONFIG_SYSTEM", AGENTS),
        ("GIT_CONFIG_PARAMETERS", "'core.pager=/tmp/evil'"),
        ("GIT_PAGER", "/tmp/evil"),
        ("GIT_TRACE2_EVENT", "/tmp/executed"),
        ("XDG_CONFIG_HOME", "/home/agent"),
    ];
    for variables in [&[][..], &hostile] {
        let run = setup(&sandbox).directory("/home/agent").envs(variables.iter().copied());
        succeeded(&run.run());
        assert!(!sandbox.path("/tmp/executed").exists(), "{}", text(&sandbox, "/tmp/executed"));
        assert!(text(&sandbox, AGENTS).starts_with(own));
        write(&sandbox, AGENTS, own);
    }
    assert!(
        text(&sandbox, ROOTS).contains(&helper(&sandbox))
            && !text(&sandbox, ROOTS).contains("evil")
    );
}

fn an_include_does_not_count_as_set() {
    let sandbox = Sandbox::new();
    let settings = format!(
        "[credential \"https://github.com\"]\n\thelper = {}\n\tuseHttpPath = true\n",
        helper(&sandbox)
    );
    write(&sandbox, "/home/agent/more", &settings);
    write(&sandbox, AGENTS, "[include]\n\tpath = more\n");
    succeeded(&setup(&sandbox).run());
    assert_eq!(text(&sandbox, AGENTS), format!("[include]\n\tpath = more\n{settings}"));
}

fn a_git_that_others_can_change_is_not_run_by_root() {
    let evil = "#!/bin/sh\ntouch /tmp/executed\n";
    for (arrange, what) in [
        ("chown -R agent /home/agent/bin", "a directory of the agent's"),
        ("chown agent /home/agent/bin/git", "a file of the agent's"),
        ("chmod 777 /home/agent/bin", "a directory for everybody"),
        ("chmod 775 /home/agent/bin; chgrp agent /home/agent/bin", "a directory for its group"),
        (
            "mv /home/agent/bin/git /usr/local/bin/x; ln -s /usr/local/bin/x /home/agent/bin/git; chown agent /home/agent/bin",
            "a link of the agent's to root's",
        ),
        ("chown -R root /home/agent/bin; chown agent /home/agent", "a home of the agent's"),
    ] {
        let sandbox = Sandbox::new();
        sandbox.sh("mkdir /home/agent/bin");
        sandbox.install("/home/agent/bin/git", evil);
        sandbox.sh(&format!("chown root /home/agent; {arrange}"));
        let path = "/home/agent/bin:/usr/bin:/bin";
        succeeded(&setup(&sandbox).env("PATH", path).run());
        assert!(!sandbox.path("/tmp/executed").exists(), "{what}");
        is_set(&sandbox, "/root");
        let sole = warning(&setup(&sandbox).env("PATH", "/home/agent/bin").run());
        assert!(
            sole.starts_with("run as root /home/agent/bin/git: others than root can"),
            "{sole}"
        );
        assert!(!sandbox.path("/tmp/executed").exists(), "{what}");
    }
    // Links that only root can change are as good as the file.
    let sandbox = Sandbox::new();
    sandbox.sh("mkdir -p /opt/bin; ln -s ../../usr/bin/git /opt/bin/git; ln -s /opt /srv");
    succeeded(&setup(&sandbox).env("PATH", "/srv/bin").run());
    is_set(&sandbox, "/home/agent");
}
