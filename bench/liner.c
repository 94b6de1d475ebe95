/* liner: a program that says something, for bench/log.
 *
 *     liner COUNT PACE_US GO DONE     waits for a byte in the FIFO GO; then COUNT lines of 80 bytes, one every PACE_US
 *                                     microseconds (0: as fast as they are taken), each by a write of its own; then
 *                                     its own processor time in nanoseconds into the FIFO DONE
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static uint64_t used(void)
{
	struct timespec time;

	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

int main(int count, char **words)
{
	char line[96], byte;
	long lines = count > 4 ? atol(words[1]) : 0, pace = count > 4 ? atol(words[2]) : 0, number;
	uint64_t begun;
	int go = count > 4 ? open(words[3], O_RDONLY) : -1, done;

	if (go < 0 || read(go, &byte, 1) != 1)
		return 1;
	begun = used();
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
	begun = used() - begun;
	done = open(words[4], O_WRONLY);
	return done < 0 || dprintf(done, "%llu", (unsigned long long)begun) < 1;
}
