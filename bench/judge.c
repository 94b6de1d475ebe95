/* judge: what bench/beats measures failures with, and the floor beside them.
 *
 *     judge DIRECTORY [PRIORITY]   reads orders, a line each, and answers each with a line
 *
 *     crash HANDED PID LEVEL NOTE LIMIT PIDS…   kills PID
 *     hang  HANDED PID LEVEL NOTE LIMIT PIDS…   stops PID; its deadline is LIMIT nanoseconds after its last beat
 *
 * The floor is the least that can be asked the same: a process that waits with poll(2), for a descriptor of the same
 * dying process or for an absolute timer of the same deadline, and writes its file. HANDED is 1 where it has
 * that done by a second process that waits in the kernel (futex(2)), which is what a file that may hang asks
 * of anybody. Both have the priority of whoever is measured: none, or SCHED_FIFO's PRIORITY.
 *
 * The judge itself is of a higher one, where it may be, so that its own delays do not count. Times are
 * CLOCK_MONOTONIC nanoseconds, taken as soon as poll(2) says that the process is dead, or that the file was changed
 * (inotify(7)). LEVEL is the supervised output's file, which goes from 1 to 0; NOTE is beater's.
 *
 * The answer: due, death, level, floor; then "ran waited" of the floor and of every one of PIDS, in nanoseconds
 * until its file was changed, as /proc/PID/schedstat has it; -1 where it is not there. "again": the program had failed
 * before it was made to, or not at all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum { PIDS_MAX = 16, FOUND_MS = 2000 };

/* What the floor waits for. */
struct task {
	int handed;
	pid_t pid;
	uint64_t due;
};

static char floor_path[PATH_MAX];
static int tasks[2], armed[2];
static uint32_t *hand;

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static int open_process(pid_t pid)
{
	return (int)syscall(SYS_pidfd_open, pid, 0);
}

static void write_level(int file, char level)
{
	char text[2] = {level, '\n'};

	if (pwrite(file, text, 2, 0) != 2)
		die("pwrite");
}

static char read_level(const char *path)
{
	char level = 0;
	int file = open(path, O_RDONLY | O_CLOEXEC);

	if (file < 0 || read(file, &level, 1) != 1)
		level = 0;
	close(file);
	return level;
}

/* The one that the work is handed to. */
static void run_hand(int file)
{
	uint32_t seen = 0;

	for (;;) {
		while (__atomic_load_n(hand, __ATOMIC_SEQ_CST) == seen)
			syscall(SYS_futex, hand, FUTEX_WAIT, seen, NULL);
		seen++;
		write_level(file, '0');
	}
}

static void run_floor(int file)
{
	struct task task;

	while (read(tasks[0], &task, sizeof task) == sizeof task) {
		struct pollfd waits = {.events = POLLIN};
		struct itimerspec at = {.it_value = {(time_t)(task.due / 1000000000u), (long)(task.due % 1000000000u)}};

		if (task.due == 0) {
			waits.fd = open_process(task.pid);
		} else {
			waits.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
			timerfd_settime(waits.fd, TFD_TIMER_ABSTIME, &at, NULL);
		}
		if (write(armed[1], "", 1) != 1)
			die("write");
		poll(&waits, 1, -1);
		if (task.handed) {
			__atomic_add_fetch(hand, 1, __ATOMIC_SEQ_CST);
			syscall(SYS_futex, hand, FUTEX_WAKE, 1);
		} else {
			write_level(file, '0');
		}
		close(waits.fd);
	}
	exit(0);
}

static void prefer(int priority)
{
	struct sched_param how = {.sched_priority = priority};

	if (priority != 0 && sched_setscheduler(0, SCHED_FIFO, &how) != 0)
		fprintf(stderr, "judge: without a real-time priority: %s\n", strerror(errno));
}

static pid_t start(void (*what)(int), int file, int priority)
{
	pid_t pid = fork();

	if (pid < 0)
		die("fork");
	if (pid == 0) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prefer(priority);
		what(file);
	}
	return pid;
}

/* Time that a process ran and time that it waited for a processor, so far. */
static void account(pid_t pid, int64_t spent[2])
{
	char path[64];
	FILE *file;
	int count = 0;

	snprintf(path, sizeof path, "/proc/%d/schedstat", pid);
	file = fopen(path, "re");
	if (file != NULL) {
		count = fscanf(file, "%ld %ld", &spent[0], &spent[1]);
		fclose(file);
	}
	if (count != 2)
		spent[0] = spent[1] = -1;
}

static void arm(int handed, pid_t pid, uint64_t due)
{
	struct task task = {handed, pid, due};
	char byte;

	if (write(tasks[1], &task, sizeof task) != sizeof task || read(armed[0], &byte, 1) != 1)
		die("floor");
}

static int is_stopped(pid_t pid)
{
	char path[64], state = 0;
	FILE *file;

	snprintf(path, sizeof path, "/proc/%d/stat", pid);
	file = fopen(path, "re");
	if (file == NULL)
		return 1;
	if (fscanf(file, "%*d (%*[^)]) %c", &state) != 1)
		state = 'Z';
	fclose(file);
	return state == 'T' || state == 'Z';
}

static void rest(long micros)
{
	struct timespec time = {0, micros * 1000};

	nanosleep(&time, NULL);
}

static int judge(char *line, int file, pid_t floor, pid_t hand_pid)
{
	char what[8], level_path[PATH_MAX], note_path[PATH_MAX];
	int handed, place, count = 0, of_floor, queue, note_file, is_hang;
	long limit;
	pid_t pid, pids[PIDS_MAX];
	int64_t before[PIDS_MAX][2], after[PIDS_MAX][2];
	uint64_t due = 0, death = 0, level = 0, floor_level = 0, end, at;
	volatile uint64_t *note;
	struct pollfd waits[2];
	int watch;

	if (sscanf(line, "%7s %d %d %4095s %4095s %ld%n", what, &handed, &pid, level_path, note_path, &limit, &place) != 6)
		return 0;
	is_hang = strcmp(what, "hang") == 0;
	pids[count++] = handed ? hand_pid : floor;
	if (handed)
		pids[count++] = floor;
	of_floor = count;
	for (char *word = strtok(line + place, " \n"); word != NULL && count < PIDS_MAX; word = strtok(NULL, " \n"))
		pids[count++] = atoi(word);
	note_file = open(note_path, O_RDONLY | O_CLOEXEC);
	note = (volatile uint64_t *)mmap(NULL, 16, PROT_READ, MAP_SHARED, note_file, 0);
	close(note_file);
	waits[0] = (struct pollfd){.fd = open_process(pid), .events = POLLIN};
	if (note == MAP_FAILED || waits[0].fd < 0)
		return 0;
	write_level(file, '1');
	queue = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	waits[1] = (struct pollfd){.fd = queue, .events = POLLIN};
	watch = inotify_add_watch(queue, level_path, IN_MODIFY);
	inotify_add_watch(queue, floor_path, IN_MODIFY);
	if (!is_hang) {
		arm(handed, pid, 0);
		/* Until it waits. */
		rest(1000);
	}
	for (int i = 0; i < count; i++)
		account(pids[i], before[i]);
	kill(pid, is_hang ? SIGSTOP : SIGKILL);
	if (is_hang) {
		for (end = now() + 20000000u; !is_stopped(pid) && now() < end;)
			rest(50);
		due = note[0] + (uint64_t)limit;
		arm(handed, pid, due);
		/* What they do until then is another matter. */
		if (due > now() + 2000000u)
			rest((long)(due - now() - 2000000u) / 1000);
		for (int i = 0; i < count; i++)
			account(pids[i], before[i]);
	}
	end = now() + FOUND_MS * 1000000ull;
	while ((death == 0 || level == 0 || floor_level == 0) && now() < end) {
		if (poll(waits, 2, 100) <= 0)
			continue;
		at = now();
		if (waits[0].fd >= 0 && waits[0].revents != 0) {
			death = at;
			close(waits[0].fd);
			waits[0].fd = -1;
		}
		if (waits[1].revents != 0) {
			int had_level = level != 0, had_floor = floor_level != 0;
			char events[4096] __attribute__((aligned(8)));
			ssize_t length = read(queue, events, sizeof events);

			for (char *one = events; one < events + length;) {
				struct inotify_event *event = (struct inotify_event *)one;

				if (event->wd != watch)
					floor_level = floor_level ? floor_level : at;
				else if (level == 0 && read_level(level_path) == '0')
					level = at;
				one += sizeof *event + event->len;
			}
			for (int i = 0; i < of_floor && !had_floor && floor_level != 0; i++)
				account(pids[i], after[i]);
			for (int i = of_floor; i < count && !had_level && level != 0; i++)
				account(pids[i], after[i]);
		}
	}
	/* Of the floor it is certain, and of the others it is soon. */
	if (floor_level == 0)
		kill(pid, SIGKILL);
	while (read_level(floor_path) != '0')
		rest(100);
	if (waits[0].fd >= 0)
		close(waits[0].fd);
	if (level == 0 || death == 0 || floor_level == 0)
		count = 0;
	else
		printf("%lu %lu %lu %lu", due, death, level, floor_level);
	for (int i = 0; i < count; i++) {
		int is_there = before[i][0] >= 0 && after[i][0] >= 0;

		printf(" %ld %ld", is_there ? after[i][0] - before[i][0] : -1, is_there ? after[i][1] - before[i][1] : -1);
	}
	close(queue);
	munmap((void *)note, 16);
	return count;
}

int main(int count, char **words)
{
	char line[16384];
	int file, priority = count > 2 ? atoi(words[2]) : 0;
	pid_t floor, hand_pid;

	if (count < 2)
		return 2;
	snprintf(floor_path, sizeof floor_path, "%s/floor", words[1]);
	file = open(floor_path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	hand = mmap(NULL, sizeof *hand, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (file < 0 || hand == MAP_FAILED || pipe2(tasks, O_CLOEXEC) != 0 || pipe2(armed, O_CLOEXEC) != 0)
		die(floor_path);
	floor = start(run_floor, file, priority);
	hand_pid = start(run_hand, file, priority);
	prefer(90);
	while (fgets(line, sizeof line, stdin) != NULL) {
		printf(judge(line, file, floor, hand_pid) ? "\n" : "again\n");
		fflush(stdout);
	}
	kill(floor, SIGKILL);
	kill(hand_pid, SIGKILL);
	return 0;
}
