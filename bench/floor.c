/* The floor: what the kernel alone asks for a restart. No policy, no log, no control socket.
 *
 *     floor spawn|fork SERVICE SOCKET FIRST-INDEX COUNT
 *
 * Starts COUNT services and restarts each that ends: signalfd tells, waitpid names it, posix_spawn
 * (or fork and exec) starts it again. A supervisor cannot be faster than this; how much slower it
 * is, is its own cost. The bench measures it exactly as it measures the supervisors.
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static sigset_t mask_before;
static int with_fork;
static char *service, *socket_path;
static int first_index;

static pid_t start(int child)
{
	char index[16];
	snprintf(index, sizeof index, "%d", first_index + child);
	char *argv[] = { service, socket_path, index, NULL };

	if (with_fork) {
		pid_t pid = fork();
		if (pid == 0) {
			sigprocmask(SIG_SETMASK, &mask_before, NULL);
			execv(service, argv);
			_exit(127);
		}
		return pid;
	}
	pid_t pid = -1;
	posix_spawnattr_t attributes;
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	posix_spawnattr_setsigmask(&attributes, &mask_before);
	posix_spawn(&pid, service, NULL, &attributes, argv, environ);
	posix_spawnattr_destroy(&attributes);
	return pid;
}

int main(int argc, char **argv)
{
	if (argc != 6)
		return 2;
	with_fork = strcmp(argv[1], "fork") == 0;
	service = argv[2];
	socket_path = argv[3];
	first_index = atoi(argv[4]);
	int count = atoi(argv[5]);

	sigset_t mask;
	sigemptyset(&mask);
	sigaddset(&mask, SIGCHLD);
	sigprocmask(SIG_BLOCK, &mask, &mask_before);
	int signals = signalfd(-1, &mask, SFD_CLOEXEC);
	pid_t *pids = calloc((size_t)count, sizeof *pids);
	if (signals < 0 || pids == NULL)
		return 1;

	for (int child = 0; child < count; child++)
		pids[child] = start(child);

	for (;;) {
		struct signalfd_siginfo info;
		if (read(signals, &info, sizeof info) != sizeof info)
			continue;
		/* One SIGCHLD may stand for many exits. */
		for (pid_t pid; (pid = waitpid(-1, NULL, WNOHANG)) > 0;)
			for (int child = 0; child < count; child++)
				if (pids[child] == pid) {
					pids[child] = start(child);
					break;
				}
	}
}
