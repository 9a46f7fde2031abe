//! The scenarios: what the sandbox holds, what the volume holds, how the boot is called.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;

use nix::sys::signal::Signal;

use crate::differential::observe::AGE;
use crate::support::sandbox::{Image, LoopDevice, Run};

/// The secondary volume at /dev/xvdb.
pub enum Volume {
    /// No device.
    Absent,
    /// ext4, filled by a script that runs in its top directory.
    Ext4(&'static str),
    /// A device without a file system.
    Raw,
    /// A device made by this program.
    Made(&'static str),
}

impl Volume {
    /// The device.
    pub fn make(&self) -> Option<LoopDevice> {
        match self {
            Self::Absent => None,
            Self::Ext4(script) => Some(LoopDevice::ext4(24, &format!("{script}\n{AGE}"))),
            Self::Raw => Some(Image::new(1 << 20).attach()),
            Self::Made(program) => Some(Image::new(8 << 20).make(program, [""; 0]).attach()),
        }
    }
}

/// One scenario.
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// sh, as root inside, before the boot.
    pub setup: &'static str,
    /// The secondary volume.
    pub volume: Volume,
    /// How the boot is called.
    pub run: fn(Run) -> Run,
}

const fn plain(name: &'static str, setup: &'static str) -> Scenario {
    Scenario { name, setup, volume: Volume::Absent, run: |run| run }
}

const fn called(name: &'static str, run: fn(Run) -> Run) -> Scenario {
    Scenario { name, setup: "", volume: Volume::Absent, run }
}

const fn restored(name: &'static str, fill: &'static str, setup: &'static str) -> Scenario {
    Scenario { name, setup, volume: Volume::Ext4(fill), run: |run| run }
}

/// A workspace as an agent leaves it.
const WORKSPACE: &str = "
mkdir -p configs/skills workspace/src/deep home/agent/.claude/sessions
echo 'model: opus' > configs/config.yaml
printf token > configs/.auth_token; chmod 600 configs/.auth_token
echo '# skill' > configs/skills/a.md
echo 'fn main() {}' > workspace/src/main.rs
head -c 300000 /dev/zero | tr '\\0' x > workspace/src/deep/large
: > workspace/empty
echo '{}' > home/agent/.claude/settings.json
echo one > home/agent/.claude/sessions/1
chown -R 1000:1000 configs workspace home/agent
chown 33:2375 workspace/src/main.rs
chmod 640 workspace/src/main.rs
chmod 2775 workspace/src
touch -d '2021-02-03 04:05:06.789012345' workspace/src/main.rs
";

/// All of them.
pub const ALL: &[Scenario] = &[
    plain("no_device", ""),
    restored("restore", WORKSPACE, ""),
    restored("restore_twice_marker_present", WORKSPACE, ": > /configs/.restore-completed"),
    restored("restore_without_home_and_configs", "mkdir workspace; echo a > workspace/a", ""),
    restored("restore_of_an_empty_volume", "", ""),
    restored(
        "restore_deletes_what_the_snapshot_lacks",
        WORKSPACE,
        "mkdir -p /workspace/old/tree /workspace/empty /configs/src; echo x > /workspace/old/tree/f
         echo changed > /workspace/src; ln -s /etc /configs/skills; mkfifo /configs/config.yaml
         echo other > /home/agent/.bashrc; chown -R 1000:1000 /workspace /configs /home/agent",
    ),
    restored(
        "restore_of_acls",
        "mkdir -p workspace/d configs; echo a > workspace/d/a; echo b > workspace/b
         setfacl -m u:33:rwx,g:2375:r workspace/d/a; setfacl -m d:u:33:rwx,u:34:r-x workspace/d
         setfacl -m m::r workspace/b; chown -R 1000:1000 workspace configs",
        "setfacl -m d:u:35:rwx /workspace /configs; chown 1000:1000 /workspace",
    ),
    restored(
        "restore_of_hard_links",
        "mkdir -p workspace/a workspace/b configs home/agent/.claude
         echo 1 > workspace/a/1; ln workspace/a/1 workspace/b/1; ln workspace/a/1 workspace/z
         ln workspace/a/1 configs/across; echo outside > out; ln out workspace/half
         ln -s nowhere workspace/l; ln -P workspace/l workspace/l2
         chown -h -R 1000:1000 workspace configs home/agent/.claude",
        "",
    ),
    restored(
        "restore_of_set_id_files_and_capabilities",
        "mkdir -p workspace configs home/agent/.claude; for d in workspace configs home/agent/.claude
         do for m in 4755 2755 6755 2644 1777; do echo x > $d/$m; done; mkdir $d/s; cp $d/4755 $d/cap
         setfattr -n security.capability -v 0sAQAAAgAgAAAAAAAAAAAAAAAAAAA= $d/cap
         chown -R 1000:1000 $d; for m in 4755 2755 6755 2644 1777; do chmod $m $d/$m; done
         chmod 3777 $d/s; done",
        "",
    ),
    restored(
        "restore_of_extended_attributes",
        "mkdir -p workspace/d configs; echo a > workspace/d/a; chown -R 1000:1000 workspace
         setfattr -n user.note -v value workspace/d/a; setfattr -n user.dir -v 0sAAEC/w== workspace/d
         setfattr -n trusted.t -v root workspace/d/a; setfattr -n user.top -v 1 workspace",
        "setfattr -n user.surplus -v 1 /workspace",
    ),
    restored(
        "restore_of_every_file_type",
        "mkdir -p workspace; cd workspace; mkfifo fifo; mknod null c 1 3; mknod blk b 7 200
         perl -MSocket -e 'socket(S,AF_UNIX,SOCK_STREAM,0); bind(S,sockaddr_un(q(sock)))'
         ln -s /etc/passwd abs; ln -s ../up rel; ln -s . self; chown -h 1000:1000 *; cd ..",
        "",
    ),
    restored(
        "restore_of_odd_names",
        "mkdir -p workspace configs; cd workspace; : > ' lead'; : > 'new
line'; : > \"$(printf 'bad\\377')\"; : > -rf; mkdir ...; : > '.*'; : > '\\n'; cd ..
         : > \"$(printf \"configs/%0255d\" 7)\"; chown -R 1000:1000 workspace configs",
        "",
    ),
    restored(
        "restore_into_root_owned_workspace",
        "mkdir -p workspace/d; echo a > workspace/d/a; echo b > workspace/b",
        "echo c > /workspace/c",
    ),
    Scenario {
        name: "restore_with_umask_077",
        setup: "",
        volume: Volume::Ext4(WORKSPACE),
        run: |run| run.umask(0o077),
    },
    restored("restore_of_sparse_file", "mkdir workspace; truncate -s 1M workspace/s", ""),
    restored(
        "restore_of_read_only_modes",
        "mkdir -p workspace/d; echo a > workspace/d/a; chmod 0 workspace/d/a; chmod 500 workspace/d
         chown -R 1000:1000 workspace",
        "",
    ),
    Scenario { name: "raw_device", setup: "", volume: Volume::Raw, run: |run| run },
    Scenario { name: "swap_device", setup: "", volume: Volume::Made("mkswap"), run: |run| run },
    plain("device_is_a_regular_file", ": > /dev/xvdb"),
    plain("device_is_a_character_device", "mknod /dev/xvdb c 1 3"),
    plain(
        "root_owned_workspace",
        "mkdir -p /workspace/a/b; echo x > /workspace/a/b/c; ln -s /etc/passwd /workspace/a/l",
    ),
    plain(
        "agent_owned_workspace",
        "mkdir /workspace/a; chown 1000:1000 /workspace/a; echo root > /workspace/a/roots",
    ),
    plain(
        "workspace_owned_by_another_user",
        "mkdir /workspace/a; chown -R 33:33 /workspace; mkdir -p /workspace/a/b",
    ),
    plain(
        "root_owned_configs",
        "umask 077; mkdir -p /configs/d/e; echo 1 > /configs/.auth_token; ln -s /etc /configs/d/l
         echo 2 > /configs/d/e/f; chmod 4755 /configs/d/e/f; chmod 2750 /configs/d",
    ),
    plain("dot_files_and_order_in_configs", "cd /configs; touch b a B _ .hidden 'two words' é 1"),
    plain("missing_configs", "rmdir /configs"),
    plain("missing_workspace", "rmdir /workspace"),
    plain("workspace_is_a_file", "rmdir /workspace; echo x > /workspace"),
    plain("configs_of_an_unknown_owner", "chown 4242:4243 /configs; chmod 1770 /configs"),
    plain("configs_with_an_acl", "setfacl -m u:33:r /configs; chown 1000:1000 /configs"),
    plain("old_configs", "chown 1000:1000 /configs; touch -d 2019-03-04 /configs /workspace"),
    plain(
        "existing_claude_home",
        "mkdir -p /home/agent/.claude/session-env; echo '{\"a\":1}' > /home/agent/.claude/settings.json
         mkdir -p /home/agent/.claude/projects; echo s > /home/agent/.claude/projects/s",
    ),
    plain("agent_has_all_directories", "cd /home/agent; mkdir .molecule-token-cache Downloads
         echo t > .molecule-token-cache/t; chmod 755 .molecule-token-cache; chown -R 1000:1000 ."),
    plain("sessions_mounted", "mkdir -p /root/.claude/sessions; echo 1 > /root/.claude/sessions/1"),
    plain("no_group_agent", "sed -i /^agent:/d /etc/group"),
    plain("no_extra_groups", "sed -i -e /^docker:/d -e /^extra:/d /etc/group"),
    plain("agent_with_other_ids", "sed -i 's/agent:x:1000:1000/agent:x:1500:100/' /etc/passwd"),
    plain("home_directory_is_missing", "rm -r /home/agent"),
    Scenario {
        name: "mirror_credentials_on",
        setup: "cd /app/scripts; echo '#!/bin/sh' > molecule-git-token-helper.sh; chmod 755 *",
        volume: Volume::Absent,
        run: |run| run.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true"),
    },
    Scenario {
        name: "mirror_credentials_on_without_scripts",
        setup: "",
        volume: Volume::Absent,
        run: |run| run.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true"),
    },
    Scenario {
        name: "mirror_credentials_written_otherwise",
        setup: "cd /app/scripts; echo '#!/bin/sh' > molecule-git-token-helper.sh; chmod 755 *",
        volume: Volume::Absent,
        run: |run| run.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "TRUE"),
    },
    Scenario {
        name: "mirror_credentials_on_with_own_settings",
        setup: "cd /app/scripts; echo '#!/bin/sh' > molecule-git-token-helper.sh; chmod 755 *
             printf '[user]\n\tname = Agent\n' > /home/agent/.gitconfig; cd /home/agent
             chown 1000:1000 .gitconfig; chmod 600 .gitconfig",
        volume: Volume::Absent,
        run: |run| run.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true"),
    },
    Scenario {
        name: "mirror_credentials_on_with_two_helpers",
        setup: "cd /app/scripts; echo '#!/bin/sh' > molecule-git-token-helper.sh; chmod 755 *
             printf '[credential \"https://github.com\"]\n\thelper = a\n\thelper = b\n' > /root/.gitconfig",
        volume: Volume::Absent,
        run: |run| run.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true"),
    },
    Scenario {
        name: "mirror_credentials_on_without_home",
        setup: "cd /app/scripts; echo '#!/bin/sh' > molecule-git-token-helper.sh; chmod 755 *",
        volume: Volume::Absent,
        run: |run| run.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true").env_remove("HOME"),
    },
    Scenario {
        name: "refresh_daemon_on",
        setup: "cd /app/scripts; printf '#!/bin/sh\ntouch /var/tmp/refreshing\nexec sleep 600\n' > molecule-gh-token-refresh.sh
             chmod 755 *; echo old > /home/agent/.gh-token-refresh.log; chown 1000 /home/agent/.gh*",
        volume: Volume::Absent,
        run: |run| run.env("ENABLE_GITHUB_MIRROR_CREDENTIALS", "true"),
    },
    restored(
        "marker_cannot_be_written",
        "mkdir -p configs/.restore-completed workspace; echo a > workspace/a",
        "",
    ),
    called("backslashes_in_variables", |run| run.env("WORKSPACE_ID", "a\\nMOLECULE-RESTORE: ok /x")),
    plain(
        "links_planted_by_the_agent",
        "mkdir -p /root/other; mkdir -m 755 /root/secret; cd /home/agent; ln -s /root/other .claude
         ln -s /root/secret Downloads; ln -s /root/secret .molecule-token-cache",
    ),
    restored(
        "restore_of_a_path_that_is_a_link",
        "ln -s /app workspace; mkdir configs",
        "echo x > /app/file; echo mine > /workspace/mine",
    ),
    plain("first_entry_ends_with_a_newline", "mkdir '/workspace/a
'; echo x > '/workspace/a
/b'"),
    called("started_as_agent", |run| run.identity(1000, 1000, &[2375])),
    called("started_as_a_user_without_entry", |run| run.identity(4242, 4243, &[])),
    called("environment_is_reported_by_name", |run| {
        run.envs([
            ("CLAUDE_CODE_OAUTH_TOKEN", "secret"),
            ("ANTHROPIC_API_KEY", ""),
            ("GLM_API_KEY", " "),
            ("WORKSPACE_ID", "ws-1"),
            ("PLATFORM_URL", "https://example.invalid/x?y=1"),
        ])
    }),
    called("odd_arguments", |run| {
        run.args(["", "two words", "new\nline", "--help", "--version", "-", "--", "*", "$HOME"])
            .arg(OsStr::from_bytes(b"bad\xff"))
    }),
    called("home_unset", |run| run.env_remove("HOME")),
    called("path_unset", |run| run.env_remove("PATH")),
    called("environment_empty", |run| run.env_clear()),
    called("path_empty_entries", |run| run.env("PATH", ":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin:")),
    called("odd_environment", |run| {
        run.env("A", "new\nline").env("not-an-identifier", "1").env("B", OsStr::from_bytes(b"\xff"))
    }),
    called("umask_077", |run| run.umask(0o077)),
    called("another_directory", |run| run.directory("/app")),
    called("ignored_and_blocked_signals", |run| {
        run.ignore(Signal::SIGUSR1).ignore(Signal::SIGPIPE).ignore(Signal::SIGHUP).block(Signal::SIGUSR2)
    }),
    called("inherited_descriptors", |run| {
        let null = || std::fs::File::open("/dev/null").expect("/dev/null");
        run.descriptor(5, null()).descriptor(17, null())
    }),
    called("standard_input_passes_through", |run| {
        run.stdin(std::fs::File::open(concat!(env!("CARGO_MANIFEST_DIR"), "/LICENSE")).expect("it"))
    }),
    plain("missing_runtime", "umount /usr/local/bin/molecule-runtime; rm /usr/local/bin/molecule-runtime"),
    plain("runtime_not_executable", "umount /usr/local/bin/molecule-runtime; chmod 644 /usr/local/bin/molecule-runtime"),
    plain("runtime_with_a_missing_interpreter", "umount /usr/local/bin/molecule-runtime
         echo '#!/no/such' > /usr/local/bin/molecule-runtime; chmod 755 /usr/local/bin/molecule-runtime"),
    plain("runtime_is_a_script_without_interpreter", "umount /usr/local/bin/molecule-runtime
         echo 'echo \"$0|$*\" > /tmp/ran; exit 9' > /usr/local/bin/molecule-runtime
         chmod 755 /usr/local/bin/molecule-runtime"),
    plain("runtime_behind_unusable_ones", "mkdir -p /usr/local/sbin/molecule-runtime"),
];
