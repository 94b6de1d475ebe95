/* What is done to lines from outside, and what is seen of them there, with the clock of the guest. A line is a file of
 * sysfs (gpio-sim: `pull` is written, `value` is read).
 *
 *   lines pulse COUNT HIGH_US LOW_US PULL...   so many pulses on all of them at once
 *   lines watch COUNT VALUE                    its next changes: level and microseconds, a line each
 *   lines silent COUNT PORT VALUE              writes coil 0 by Modbus and is silent: microseconds until the line is low,
 *                                              a line each
 *   lines until LEVEL VALUE...                 microseconds of the clock when all are at this level, or now where none is named
 */
#include "call.h"

typedef unsigned long number;

enum { OPENAT = 56, CLOSE = 57, READ = 63, WRITE = 64, PREAD = 67, PWRITE = 68, EXIT = 93, CLOCK_GETTIME = 113,
       CLOCK_NANOSLEEP = 115, SOCKET = 198, CONNECT = 203 };

static void end(int code)
{
	call(EXIT, code, 0, 0, 0);
}

static number value_of(const char *text)
{
	number value = 0;

	while (*text)
		value = value * 10 + *text++ - '0';
	return value;
}

static void say(number value, char last)
{
	char text[24];
	int at = sizeof text;

	text[--at] = last;
	do
		text[--at] = '0' + value % 10;
	while (value /= 10);
	call(WRITE, 1, (long)(text + at), sizeof text - at, 0);
}

static number now_us(void)
{
	long time[2];

	call(CLOCK_GETTIME, 1, (long)time, 0, 0);
	return (number)time[0] * 1000000 + time[1] / 1000;
}

static void sleep_until(number us)
{
	long time[2] = { us / 1000000, us % 1000000 * 1000 };

	call(CLOCK_NANOSLEEP, 1, 1, (long)time, 0);
}

static long open_file(const char *path, int flags)
{
	long file = call(OPENAT, -100, (long)path, flags, 0);

	if (file < 0)
		end(2);
	return file;
}

static char level(long file)
{
	char text = 0;

	if (call(PREAD, file, (long)&text, 1, 0) != 1)
		end(3);
	return text;
}

static void pull(long file, int up)
{
	if (call(PWRITE, file, (long)(up ? "pull-up" : "pull-down"), up ? 7 : 9, 0) < 0)
		end(3);
}

static void pulse(number count, number high, number low, char **paths)
{
	long files[16];
	int lines = 0;
	number due;

	for (; paths[lines] && lines < 16; lines++)
		files[lines] = open_file(paths[lines], 1);
	for (due = now_us(); count; count--) {
		for (int up = 1; up >= 0; up--) {
			for (int line = 0; line < lines; line++)
				pull(files[line], up);
			due += up ? high : low;
			sleep_until(due);
		}
	}
}

static void watch(number count, const char *path)
{
	long file = open_file(path, 0);
	char before = level(file);

	while (count) {
		char is = level(file);

		if (is != before) {
			number at = now_us();

			say(is - '0', ' ');
			say(at, '\n');
			count--;
		}
		before = is;
		sleep_until(now_us() + 500);
	}
}

static void silent(number count, number port, const char *path)
{
	unsigned char address[16] = { 2, 0, port >> 8, port, 127, 0, 0, 1 };
	unsigned char request[12] = { 0, 1, 0, 0, 0, 6, 1, 5, 0, 0, 0xff, 0 }, answer[64];
	long file = open_file(path, 0), to = call(SOCKET, 2, 1, 0, 0);

	if (call(CONNECT, to, (long)address, sizeof address, 0) < 0)
		end(4);
	for (; count; count--) {
		number asked = now_us();

		if (call(WRITE, to, (long)request, sizeof request, 0) != 12 || call(READ, to, (long)answer, sizeof answer, 0) != 12 ||
		    level(file) != '1')
			end(5);
		while (level(file) == '1')
			sleep_until(now_us() + 500);
		say(now_us() - asked, '\n');
	}
}

static void until(char wanted, char **paths)
{
	for (; *paths; paths++) {
		long file = open_file(*paths, 0);

		while (level(file) != wanted)
			sleep_until(now_us() + 500);
		call(CLOSE, file, 0, 0, 0);
	}
	say(now_us(), '\n');
}

__attribute__((used)) static void run(long *stack)
{
	char **words = (char **)(stack + 1);

	switch (words[1][0]) {
	case 'p':
		pulse(value_of(words[2]), value_of(words[3]), value_of(words[4]), words + 5);
		break;
	case 'w':
		watch(value_of(words[2]), words[3]);
		break;
	case 'u':
		until(words[2][0], words + 3);
		break;
	default:
		silent(value_of(words[2]), value_of(words[3]), words[4]);
	}
	end(0);
}
