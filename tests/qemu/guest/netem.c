/* The weather of a network interface: netem(8) at its root, as `tc qdisc replace dev … root netem` makes it.
 *
 *   netem INDEX LOSS DELAY_MS JITTER_MS DUPLICATE REORDER   the interface's number; percent and milliseconds
 */
#include "call.h"

typedef unsigned int word;

enum { WRITE = 64, READ = 63, EXIT = 93, SOCKET = 198 };
enum { AF_NETLINK = 16, SOCK_RAW = 3, NETLINK_ROUTE = 0 };
enum { RTM_NEWQDISC = 36, NLMSG_ERROR = 2, NLM_F_REQUEST = 1, NLM_F_ACK = 4, NLM_F_REPLACE = 0x100, NLM_F_CREATE = 0x400 };
enum { TCA_KIND = 1, TCA_OPTIONS = 2, TCA_NETEM_REORDER = 3, TCA_NETEM_LATENCY64 = 10, TCA_NETEM_JITTER64 = 11 };

/* linux/netlink.h, linux/rtnetlink.h, linux/pkt_sched.h; every part is a multiple of four bytes. */
struct attribute {
	unsigned short length, kind;
};

struct request {
	word length;
	unsigned short type, flags;
	word sequence, port;
	word family;
	int interface;
	word handle, parent, info;
	struct attribute kind_is;
	char kind[8];
	struct attribute options_are;
	/* tc_netem_qopt: latency and jitter are below, in nanoseconds. */
	word latency, limit, loss, gap, duplicate, jitter;
	struct attribute reorder_is;
	word reorder, reorder_correlation;
	struct attribute latency_is;
	word latency_ns[2];
	struct attribute jitter_is;
	word jitter_ns[2];
};

static unsigned long value_of(const char *text)
{
	unsigned long value = 0;

	while (*text)
		value = value * 10 + *text++ - '0';
	return value;
}

/* Of 2^32 - 1. */
static word percent(const char *text)
{
	return 0xffffffffUL * value_of(text) / 100;
}

static void nanoseconds(word *to, const char *ms)
{
	unsigned long ns = value_of(ms) * 1000000;

	to[0] = ns;
	to[1] = ns >> 32;
}

__attribute__((used)) static void run(long *stack)
{
	char **words = (char **)(stack + 1);
	struct request all;
	int answer[64];
	long to = call(SOCKET, AF_NETLINK, SOCK_RAW, NETLINK_ROUTE, 0);

	memset(&all, 0, sizeof all);
	all.length = sizeof all;
	all.type = RTM_NEWQDISC;
	all.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
	all.interface = value_of(words[1]);
	all.parent = 0xffffffff;
	all.kind_is.length = sizeof all.kind_is + 6;
	all.kind_is.kind = TCA_KIND;
	for (int at = 0; at < 5; at++)
		all.kind[at] = "netem"[at];
	all.options_are.length = sizeof all - __builtin_offsetof(struct request, options_are);
	all.options_are.kind = TCA_OPTIONS;
	all.limit = 1000;
	all.loss = percent(words[2]);
	all.duplicate = percent(words[5]);
	all.reorder_is.length = 12;
	all.reorder_is.kind = TCA_NETEM_REORDER;
	all.reorder = percent(words[6]);
	/* Each packet may be the one that overtakes. */
	all.gap = all.reorder != 0;
	all.latency_is.length = all.jitter_is.length = 12;
	all.latency_is.kind = TCA_NETEM_LATENCY64;
	all.jitter_is.kind = TCA_NETEM_JITTER64;
	nanoseconds(all.latency_ns, words[3]);
	nanoseconds(all.jitter_ns, words[4]);
	if (call(WRITE, to, (long)&all, sizeof all, 0) != sizeof all || call(READ, to, (long)answer, sizeof answer, 0) < 20)
		call(EXIT, 2, 0, 0, 0);
	/* The header, and 0 or the error. */
	call(EXIT, (answer[1] & 0xffff) != NLMSG_ERROR ? 3 : -answer[4], 0, 0, 0);
}
