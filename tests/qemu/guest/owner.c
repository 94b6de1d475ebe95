/* What a program may do to a line it was handed (descriptor 3), and what another may ask the kernel for. */
#include <linux/gpio.h>

#include "call.h"

enum { IOCTL = 29, OPENAT = 56, PPOLL = 73, EXIT = 93, SETSID = 157, CLONE = 220, PIDFD_OPEN = 434 };
enum { LINE = 3, SIGCHLD = 17 };

static void set(int value)
{
	struct gpio_v2_line_values values = { .bits = value, .mask = 1 };

	call(IOCTL, LINE, GPIO_V2_LINE_SET_VALUES_IOCTL, (long)&values, 0);
}

static void configure(unsigned long flags)
{
	struct gpio_v2_line_config config = { .flags = flags };

	call(IOCTL, LINE, GPIO_V2_LINE_SET_CONFIG_IOCTL, (long)&config, 0);
}

/* Requests line N of the first chip; an errno, or 0 and the line is held. */
static long request(int offset)
{
	struct gpio_v2_line_request line = {
		.offsets = { offset }, .num_lines = 1, .config = { .flags = GPIO_V2_LINE_FLAG_OUTPUT }
	};
	long chip = call(OPENAT, -100, (long)"/dev/gpiochip0", 2, 0);

	return chip < 0 ? -chip : -call(IOCTL, chip, GPIO_V2_GET_LINE_IOCTL, (long)&line, 0);
}

static void hold(void)
{
	for (;;)
		call(PPOLL, 0, 0, 0, 0);
}

static void flicker(void)
{
	for (;;) {
		set(1);
		set(0);
	}
}

/* The floor of how fast a line can follow a death: drives line N high, waits for that process, drives it low. */
static void follow(const char *process, int offset)
{
	struct gpio_v2_line_request line = {
		.offsets = { offset }, .num_lines = 1, .config = {
			.flags = GPIO_V2_LINE_FLAG_OUTPUT,
			.num_attrs = 1,
			.attrs = { { .attr = { .id = GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES, .values = 1 }, .mask = 1 } }
		}
	};
	struct { int descriptor; short events, got; } wait = { .events = 1 };
	long pid = 0;

	while (*process)
		pid = pid * 10 + *process++ - '0';
	wait.descriptor = call(PIDFD_OPEN, pid, 0, 0, 0);
	if (wait.descriptor < 0 || call(IOCTL, call(OPENAT, -100, (long)"/dev/gpiochip0", 2, 0),
					GPIO_V2_GET_LINE_IOCTL, (long)&line, 0) < 0)
		call(EXIT, 1, 0, 0, 0);
	line.config.attrs[0].attr.values = 0;
	call(PPOLL, (long)&wait, 1, 0, 0);
	call(IOCTL, line.fd, GPIO_V2_LINE_SET_CONFIG_IOCTL, (long)&line.config, 0);
	call(EXIT, 0, 0, 0, 0);
}

static int is(const char *word, char first)
{
	return word[0] == first;
}

/* owner high | low | input | flip | writes | descendants | request N | take N | bare PID N */
__attribute__((used)) static void run(long *stack)
{
	char **words = (char **)(stack + 1);
	const char *what = words[1];

	if (is(what, 'h'))
		set(1);
	if (is(what, 'l'))
		set(0);
	if (is(what, 'i'))
		configure(GPIO_V2_LINE_FLAG_INPUT);
	if (is(what, 'f'))
		configure(GPIO_V2_LINE_FLAG_OUTPUT | GPIO_V2_LINE_FLAG_ACTIVE_LOW);
	if (is(what, 'w'))
		flicker();
	if (is(what, 'd')) {
		for (int i = 0; i < 3; i++) {
			if (call(CLONE, SIGCHLD, 0, 0, 0) == 0) {
				call(SETSID, 0, 0, 0, 0);
				if (call(CLONE, SIGCHLD, 0, 0, 0) == 0)
					flicker();
				call(EXIT, 0, 0, 0, 0);
			}
		}
	}
	if (is(what, 'r'))
		call(EXIT, request(words[2][0] - '0'), 0, 0, 0);
	if (is(what, 'b'))
		follow(words[2], words[3][0] - '0');
	if (is(what, 't') && request(words[2][0] - '0') != 0)
		call(EXIT, 1, 0, 0, 0);
	hold();
}
