/* A program that multusd runs, in C: ready, a status, an output switched on, beats; an input, where it is asked. */
#include "multusd.h"

#include <signal.h>
#include <stdio.h>

static volatile sig_atomic_t ending;

static void end(int number)
{
	(void)number;
	ending = 1;
}

static void rest(long milliseconds)
{
	struct timespec time;

	time.tv_sec = 0;
	time.tv_nsec = milliseconds * 1000000;
	nanosleep(&time, NULL);
}

int main(int count, char **words)
{
	struct multusd multusd;
	struct multusd_input input;
	struct sigaction action;
	int lamp;

	memset(&action, 0, sizeof(action));
	action.sa_handler = end;
	sigaction(SIGTERM, &action, NULL);
	if (multusd_open(&multusd) != 0) {
		perror("multusd_open");
		return 1;
	}
	if (count > 1) {
		if (multusd_read_input(&multusd, words[1], &input) != 0) {
			perror("multusd_read_input");
			return 1;
		}
		printf("%d %d %d %llu %llu\n", input.is_read, input.high, input.on, (unsigned long long)input.edges,
		       (unsigned long long)input.time_ns);
		return 0;
	}
	lamp = multusd_output("lamp");
	if (lamp >= 0 && multusd_set(lamp, 1) != 0) {
		perror("multusd_set");
		return 1;
	}
	if (multusd_ready(&multusd) != 0 || multusd_status(&multusd, "speaks C") != 0) {
		perror("multusd_ready");
		return 1;
	}
	while (!ending) {
		if (multusd_beat(&multusd) != 0) {
			perror("multusd_beat");
			return 1;
		}
		rest(50);
	}
	return multusd_stopping(&multusd) == 0 ? 0 : 1;
}
