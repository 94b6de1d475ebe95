/* liner: a program that says something, for bench/log.
 *
 *     liner COUNT PACE_US     COUNT lines of 80 bytes, one every PACE_US microseconds (0: as fast as they are taken),
 *                             each by a write of its own; then, on standard error, the nanoseconds that took
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(int count, char **words)
{
	char line[96];
	long lines = count > 1 ? atol(words[1]) : 0, pace = count > 2 ? atol(words[2]) : 0, number;
	uint64_t begun = now();

	for (number = 0; number < lines; number++) {
		int length = snprintf(line, sizeof line, "line %-9ld ", number);
		memset(line + length, '.', 79 - (size_t)length);
		line[79] = '\n';
		if (write(1, line, 80) != 80)
			return 1;
		if (pace) {
			struct timespec time = {0, pace * 1000};
			nanosleep(&time, NULL);
		}
	}
	fprintf(stderr, "%llu\n", (unsigned long long)(now() - begun));
	return 0;
}
