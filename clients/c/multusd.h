/*
 * multusd.h: for programs that multusd runs. Readiness, heartbeat, status, outputs, inputs.
 *
 *     #include "multusd.h"            first, or with _POSIX_C_SOURCE >= 200809L defined
 *
 *     struct multusd multusd;
 *     if (multusd_open(&multusd) != 0) perror("multusd");
 *     multusd_ready(&multusd);
 *     for (;;) {
 *         ... a round of work ...
 *         multusd_beat(&multusd);
 *     }
 *
 * Nothing but this header and the C library. Every function returns 0, or -1 with errno set. Where the
 * environment says nothing (the program was started by hand) everything succeeds and does nothing, so that a
 * program needs no second way to run.
 *
 * One struct belongs to one thread at a time. No call but multusd_open allocates, looks anything up or waits;
 * a beat costs one system call, none where the heartbeat is a counter.
 *
 * Public domain (CC0); no condition, no warranty.
 */
#ifndef MULTUSD_H
#define MULTUSD_H

#if !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE) && !defined(_DEFAULT_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/un.h>
#include <netinet/in.h>
#include <time.h>
#include <unistd.h>

#ifndef CLOCK_MONOTONIC
#error "include multusd.h before any other header, or define _POSIX_C_SOURCE as 200809L"
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum multusd_kind {
	MULTUSD_NONE,	 /* nobody judges */
	MULTUSD_NOTIFY,	 /* WATCHDOG=1 on NOTIFY_SOCKET */
	MULTUSD_FD,	 /* a byte on an inherited descriptor */
	MULTUSD_COUNTER, /* the time, in shared memory */
	MULTUSD_FILE,	 /* a change of a file */
	MULTUSD_TCP	 /* counting bytes 1 to 9 on a connection */
};

struct multusd {
	enum multusd_kind kind;
	int notify;		       /* NOTIFY_SOCKET, connected; -1: there is none */
	int fd;			       /* of kinds fd and tcp */
	uint64_t *page;		       /* of kind counter */
	const char *file;	       /* of kind file */
	const unsigned char *inputs;   /* the page of inputs; NULL: there is none */
	unsigned char last;	       /* of kind tcp: the last byte */
	unsigned long long limit_usec; /* the longest silence allowed; 0: nobody judges */
};

/* A decimal number that fills the text; -1: it is none. */
static inline long multusd_number_(const char *text)
{
	char *end;
	long number;

	if (*text < '0' || *text > '9')
		return -1;
	number = strtol(text, &end, 10);
	return *end == '\0' ? number : -1;
}

static inline int multusd_wrong_(int error)
{
	errno = error;
	return -1;
}

static inline int multusd_open_notify_(struct multusd *m, const char *path)
{
	struct sockaddr_un address;
	size_t length = strlen(path);

	if (length >= sizeof(address.sun_path))
		return multusd_wrong_(ENAMETOOLONG);
	memset(&address, 0, sizeof(address));
	address.sun_family = AF_UNIX;
	memcpy(address.sun_path, path, length);
	if (path[0] == '@')
		address.sun_path[0] = '\0';
	m->notify = socket(AF_UNIX, SOCK_DGRAM, 0);
	if (m->notify < 0)
		return -1;
	if (fcntl(m->notify, F_SETFD, FD_CLOEXEC) < 0)
		return -1;
	return connect(m->notify, (const struct sockaddr *)&address,
		       (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length));
}

static inline int multusd_open_tcp_(struct multusd *m, long port)
{
	struct sockaddr_in address;

	if (port < 1 || port > 65535)
		return multusd_wrong_(EINVAL);
	memset(&address, 0, sizeof(address));
	address.sin_family = AF_INET;
	address.sin_port = htons((uint16_t)port);
	address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	m->fd = socket(AF_INET, SOCK_STREAM, 0);
	if (m->fd < 0)
		return -1;
	if (fcntl(m->fd, F_SETFD, FD_CLOEXEC) < 0)
		return -1;
	return connect(m->fd, (const struct sockaddr *)&address, sizeof(address));
}

static inline int multusd_open_beat_(struct multusd *m, const char *text)
{
	const char *colon = strchr(text, ':');
	const char *what = colon != NULL ? colon + 1 : "";
	size_t length = colon != NULL ? (size_t)(colon - text) : strlen(text);
	long number = multusd_number_(what);
	void *page;

	if (length == 6 && memcmp(text, "notify", length) == 0) {
		m->kind = MULTUSD_NOTIFY;
		return 0;
	}
	if (length == 4 && memcmp(text, "file", length) == 0) {
		m->kind = MULTUSD_FILE;
		m->file = what;
		return 0;
	}
	if (length == 2 && memcmp(text, "fd", length) == 0 && number >= 0) {
		m->kind = MULTUSD_FD;
		m->fd = (int)number;
		return fcntl(m->fd, F_GETFD) < 0 ? -1 : 0;
	}
	if (length == 3 && memcmp(text, "tcp", length) == 0) {
		m->kind = MULTUSD_TCP;
		return multusd_open_tcp_(m, number);
	}
	if (length == 7 && memcmp(text, "counter", length) == 0 && number >= 0) {
		page = mmap(NULL, sizeof(*m->page), PROT_READ | PROT_WRITE, MAP_SHARED, (int)number, 0);
		if (page == MAP_FAILED)
			return -1;
		m->kind = MULTUSD_COUNTER;
		m->page = (uint64_t *)page;
		return 0;
	}
	return multusd_wrong_(EINVAL);
}

/* The page of inputs: a header of 64 bytes (magic, version, count), then records of 64 bytes each. */
static inline int multusd_open_inputs_(struct multusd *m, long number)
{
	struct stat status;
	uint32_t version;
	void *page;

	if (number < 0)
		return multusd_wrong_(EINVAL);
	if (fstat((int)number, &status) != 0)
		return -1;
	if (status.st_size < 64)
		return multusd_wrong_(EINVAL);
	page = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_SHARED, (int)number, 0);
	if (page == MAP_FAILED)
		return -1;
	memcpy(&version, (const unsigned char *)page + 8, sizeof(version));
	if (memcmp(page, "multusdI", 8) != 0 || version != 1)
		return multusd_wrong_(EINVAL);
	m->inputs = (const unsigned char *)page;
	return 0;
}

/* Takes what the environment says: NOTIFY_SOCKET, MULTUSD_HEARTBEAT, MULTUSD_HEARTBEAT_USEC, MULTUSD_INPUTS. */
static inline int multusd_open(struct multusd *m)
{
	const char *notify = getenv("NOTIFY_SOCKET");
	const char *beat = getenv("MULTUSD_HEARTBEAT");
	const char *limit = getenv("MULTUSD_HEARTBEAT_USEC");
	const char *inputs = getenv("MULTUSD_INPUTS");

	memset(m, 0, sizeof(*m));
	m->notify = m->fd = -1;
	if (limit != NULL)
		m->limit_usec = strtoull(limit, NULL, 10);
	if (notify != NULL && *notify != '\0' && multusd_open_notify_(m, notify) != 0)
		return -1;
	if (inputs != NULL && *inputs != '\0' && multusd_open_inputs_(m, multusd_number_(inputs)) != 0)
		return -1;
	if (beat != NULL && *beat != '\0')
		return multusd_open_beat_(m, beat);
	/* Under another supervisor that speaks sd_notify. */
	if (getenv("WATCHDOG_USEC") != NULL)
		m->kind = MULTUSD_NOTIFY;
	return 0;
}

/* Says anything of sd_notify(3), such as "EXTEND_TIMEOUT_USEC=5000000". Waits while the queue is full. */
static inline int multusd_say(struct multusd *m, const char *words)
{
	if (m->notify < 0)
		return 0;
	return send(m->notify, words, strlen(words), MSG_NOSIGNAL) < 0 ? -1 : 0;
}

/* It serves (ready = notify). */
static inline int multusd_ready(struct multusd *m)
{
	return multusd_say(m, "READY=1");
}

/* It is about to end: it has its stop time, and its heartbeat is not judged in it. */
static inline int multusd_stopping(struct multusd *m)
{
	return multusd_say(m, "STOPPING=1");
}

/* A line for people, which `multusctl status` shows; what is longer than 119 bytes is cut. */
static inline int multusd_status(struct multusd *m, const char *text)
{
	char words[128] = "STATUS=";
	size_t length = strlen(text);

	if (length > sizeof(words) - 8)
		length = sizeof(words) - 8;
	memcpy(words + 7, text, length);
	return multusd_say(m, words);
}

/*
 * A time on the page of kind counter. Whole where the processor can; where it would take libatomic (ARM before
 * v6k) in two halves, the high one first: what is seen between them is never older than the last beat.
 */
static inline void multusd_store_(uint64_t *page, uint64_t time)
{
#if __GCC_ATOMIC_LLONG_LOCK_FREE == 2
	__atomic_store_n(page, time, __ATOMIC_RELAXED);
#else
	uint32_t *half = (uint32_t *)(void *)page;
	const int high = __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__;

	__atomic_store_n(half + high, (uint32_t)(time >> 32), __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	__atomic_store_n(half + !high, (uint32_t)time, __ATOMIC_RELAXED);
#endif
}

/* It makes progress. Never waits: a queue that is full holds beats that were not looked at yet. */
static inline int multusd_beat(struct multusd *m)
{
	struct timespec now;
	int file;

	switch (m->kind) {
	case MULTUSD_NONE:
		return 0;
	case MULTUSD_NOTIFY:
		if (m->notify >= 0 && send(m->notify, "WATCHDOG=1", 10, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
			return errno == EAGAIN ? 0 : -1;
		return 0;
	case MULTUSD_FD:
		if (write(m->fd, ".", 1) < 0)
			return errno == EAGAIN ? 0 : -1;
		return 0;
	case MULTUSD_COUNTER:
		if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
			return -1;
		multusd_store_(m->page, (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec);
		return 0;
	case MULTUSD_FILE:
		if (utimensat(AT_FDCWD, m->file, NULL, 0) == 0)
			return 0;
		if (errno != ENOENT)
			return -1;
		file = open(m->file, O_WRONLY | O_CREAT | O_NONBLOCK, 0644);
		return file < 0 ? -1 : close(file);
	case MULTUSD_TCP:
		m->last = (unsigned char)(m->last % 9 + 1);
		return send(m->fd, &m->last, 1, MSG_NOSIGNAL) < 0 ? -1 : 0;
	}
	return multusd_wrong_(EINVAL);
}

/* The number after NAME= in a list such as "pump-relay=5,lamp=6"; -1 and ENOENT: it is not in it. */
static inline int multusd_named_(const char *list, const char *name)
{
	size_t length = strlen(name);

	while (list != NULL && *list != '\0') {
		if (strncmp(list, name, length) == 0 && list[length] == '=')
			return (int)strtol(list + length + 1, NULL, 10);
		list = strchr(list, ',');
		if (list != NULL)
			list++;
	}
	return multusd_wrong_(ENOENT);
}

/* The descriptor of one of the program's outputs; -1 and ENOENT: it has none of this name. */
static inline int multusd_output(const char *name)
{
	return multusd_named_(getenv("MULTUSD_OUTPUTS"), name);
}

/* gpio_v2_line_values and GPIO_V2_LINE_SET_VALUES_IOCTL of <linux/gpio.h> (Linux 5.10). */
struct multusd_line_values_ {
	uint64_t bits;
	uint64_t mask;
};
#define MULTUSD_SET_VALUES_ 0xC010B40FuL

/*
 * Switches an output on or off. A GPIO line that is configured `active = low` is turned around by the kernel;
 * a file (an LED, a PWM, a test's) is written "1" or "0": where other words are meant, write them yourself.
 */
static inline int multusd_set(int output, int on)
{
	struct multusd_line_values_ values;

	values.mask = 1;
	values.bits = on ? 1 : 0;
	if (ioctl(output, MULTUSD_SET_VALUES_, &values) == 0)
		return 0;
	if (errno != ENOTTY && errno != EINVAL)
		return -1;
	return pwrite(output, on ? "1\n" : "0\n", 2, 0) == 2 ? 0 : -1;
}

/* One input, as it was published last. */
struct multusd_input {
	int is_read;	  /* 0: nothing is known of it now */
	int high;	  /* its voltage */
	int on;		  /* what that means: `active` */
	uint64_t edges;	  /* since multusd requested it */
	uint64_t time_ns; /* of the last of them, CLOCK_MONOTONIC, by the kernel; 0: there was none */
};

/* Reads one of the machine's inputs (`inputs =`), by its name; no system call. -1 and ENOENT: there is none. */
static inline int multusd_read_input(const struct multusd *m, const char *name, struct multusd_input *input)
{
	const unsigned char *record = m->inputs;
	const uint32_t *sequence;
	uint32_t index, count, flags, before;

	if (record == NULL)
		return multusd_wrong_(ENOENT);
	memcpy(&count, record + 12, sizeof(count));
	for (index = 0; index < count; index++) {
		record += 64;
		if (*name == '\0' || strncmp((const char *)record + 32, name, 32) != 0)
			continue;
		sequence = (const uint32_t *)(const void *)record;
		/* Odd while it is written; the same before and after: nothing was written meanwhile. */
		do {
			before = __atomic_load_n(sequence, __ATOMIC_SEQ_CST);
			memcpy(&flags, record + 4, sizeof(flags));
			memcpy(&input->edges, record + 8, sizeof(input->edges));
			memcpy(&input->time_ns, record + 16, sizeof(input->time_ns));
			__atomic_thread_fence(__ATOMIC_SEQ_CST);
		} while ((before & 1) != 0 || __atomic_load_n(sequence, __ATOMIC_SEQ_CST) != before);
		input->is_read = (flags & 1) != 0;
		input->high = (flags & 2) != 0;
		input->on = (flags & 4) != 0;
		return 0;
	}
	return multusd_wrong_(ENOENT);
}

#ifdef __cplusplus
}
#endif

#endif
