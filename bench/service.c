/* The service under test: reports the moment of its own first instruction, then waits for ever.
 *
 *     service SOCKET INDEX [READY-FD]
 *
 * It takes the clock before anything else and sends {index, pid, nanoseconds} as one datagram, so
 * what is measured is "the program runs again" and not when the bench got round to reading it. It
 * never reads, logs or wakes: whatever moves while it waits is the supervisor's doing.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct report {
	uint32_t index;
	uint32_t pid;
	uint64_t at_ns; /* CLOCK_MONOTONIC, the same clock as the bench's */
};

int main(int argc, char **argv)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	if (argc < 3)
		return 2;

	struct report report = {
		.index = (uint32_t)atoi(argv[2]),
		.pid = (uint32_t)getpid(),
		.at_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
	};
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	strncpy(to.sun_path, argv[1], sizeof to.sun_path - 1);
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	/* Blocks while the queue (10 datagrams on most kernels) is full: no report is lost in a storm.
	 * A failure means that the bench is gone; then there is nobody to tell. */
	(void)!sendto(fd, &report, sizeof report, 0, (struct sockaddr *)&to, sizeof to);
	close(fd);

	if (argc > 3) { /* s6 readiness: a newline on a descriptor, then its end */
		int ready = atoi(argv[3]);
		(void)!write(ready, "\n", 1);
		close(ready);
	}
	for (;;)
		pause();
}
