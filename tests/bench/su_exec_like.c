/* The least that a program with gosu's task does: one passwd entry, the group list, three calls, exec.
   Nothing is verified. musl's look-ups read the files alone; glibc's may load modules. */
#define _GNU_SOURCE
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    struct passwd *user = argc > 2 ? getpwnam(argv[1]) : NULL;
    gid_t groups[1024];
    int count = 1024;

    if (!user || getgrouplist(user->pw_name, user->pw_gid, groups, &count) < 0)
        return 1;
    if (setgroups(count, groups) || setgid(user->pw_gid) || setuid(user->pw_uid))
        return 1;
    setenv("HOME", user->pw_dir, 1);
    execvp(argv[2], argv + 2);
    return 1;
}
