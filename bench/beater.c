/* beater: a program that beats, for bench/beats.
 *
 *     beater beat PACE_US NOTE        beats for ever; NOTE gets the time just before each beat, and their number
 *     beater cost COUNT PACE_US NOTE  beats so often; NOTE gets nanoseconds in all spent in beating, and their number
 *     beater delay NOTE               sleeps a millisecond again and again; NOTE gets the longest overshoot
 *     beater burn                     keeps a processor busy
 */
#include "../clients/c/multusd.h"

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

static void rest(long micros)
{
	struct timespec time = {micros / 1000000, micros % 1000000 * 1000};

	nanosleep(&time, NULL);
}

int main(int count, char **words)
{
	struct multusd multusd;
	volatile uint64_t *note;
	uint64_t begun, took, empty = 0;
	long left;
	int file;

	if (count < 2)
		return 2;
	if (strcmp(words[1], "burn") == 0)
		for (;;)
			(void)now();
	if (count < 3 || multusd_open(&multusd) != 0)
		return 1;
	file = open(words[count - 1], O_RDWR | O_CREAT, 0644);
	if (file < 0 || ftruncate(file, 16) != 0)
		return 1;
	note = (volatile uint64_t *)mmap(NULL, 16, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (note == MAP_FAILED)
		return 1;
	note[0] = note[1] = 0;
	multusd_ready(&multusd);
	if (strcmp(words[1], "delay") == 0) {
		for (;;) {
			begun = now();
			rest(1000);
			took = now() - begun - 1000000;
			if (took > note[0])
				note[0] = took;
			note[1]++;
		}
	}
	/* What two looks at the clock cost. */
	for (left = 0; left < 1000; left++) {
		begun = now();
		empty += now() - begun;
	}
	empty /= 1000;
	left = strcmp(words[1], "cost") == 0 ? strtol(words[2], NULL, 10) : -1;
	for (; left != 0; left -= left > 0) {
		begun = now();
		if (left < 0)
			note[0] = begun;
		if (multusd_beat(&multusd) != 0)
			return 1;
		if (left > 0)
			note[0] += now() - begun - empty;
		note[1]++;
		rest(strtol(words[left < 0 ? 2 : 3], NULL, 10));
	}
	for (;;) {
		multusd_beat(&multusd);
		rest(100000);
	}
}
