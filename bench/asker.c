/* Asks a Modbus server as fast as it answers: asker PORT CONNECTIONS MILLISECONDS. Each connection has one request at a time
 * (function 3, eight registers from 0). Prints how many were answered rightly, and the median and 99th percentile of the time
 * that an answer took, in microseconds; ends with 1 where an answer is wrong. */
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REQUEST = 12, ANSWER = 9 + 16, SAMPLES = 1 << 20, CONNECTIONS = 64 };

static const unsigned char request[REQUEST] = { 0, 7, 0, 0, 0, 6, 1, 3, 0, 0, 0, 8 };
static const unsigned char head[9] = { 0, 7, 0, 0, 0, 19, 1, 3, 16 };
static unsigned samples[SAMPLES];

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int by_size(const void *a, const void *b)
{
	unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;

	return (x > y) - (x < y);
}

int main(int count, char **words)
{
	int connections = count == 4 ? atoi(words[2]) : 0, set = epoll_create1(0);
	int sockets[CONNECTIONS], got[CONNECTIONS] = { 0 };
	unsigned char answers[CONNECTIONS][ANSWER];
	double asked[CONNECTIONS], until;
	size_t answered = 0;

	if (connections < 1 || connections > CONNECTIONS)
		return 2;
	for (int i = 0; i < connections; i++) {
		struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(atoi(words[1])) };
		struct epoll_event event = { .events = EPOLLIN, .data.u32 = i };

		to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		sockets[i] = socket(AF_INET, SOCK_STREAM, 0);
		setsockopt(sockets[i], IPPROTO_TCP, TCP_NODELAY, &(int){ 1 }, sizeof(int));
		if (connect(sockets[i], (struct sockaddr *)&to, sizeof to) != 0)
			return perror("connect"), 1;
		epoll_ctl(set, EPOLL_CTL_ADD, sockets[i], &event);
	}
	until = now() + atoi(words[3]) / 1000.0;
	for (int i = 0; i < connections; i++) {
		asked[i] = now();
		if (write(sockets[i], request, REQUEST) != REQUEST)
			return perror("write"), 1;
	}
	while (now() < until) {
		struct epoll_event events[CONNECTIONS];
		int ready = epoll_wait(set, events, CONNECTIONS, 1000);

		for (int e = 0; e < ready; e++) {
			int i = events[e].data.u32;
			ssize_t more = read(sockets[i], answers[i] + got[i], ANSWER - got[i]);

			if (more <= 0)
				return perror("read"), 1;
			got[i] += more;
			if (got[i] < ANSWER)
				continue;
			if (memcmp(answers[i], head, sizeof head) != 0)
				return fprintf(stderr, "a wrong answer\n"), 1;
			if (answered < SAMPLES)
				samples[answered] = (now() - asked[i]) * 1e6;
			answered++;
			got[i] = 0;
			asked[i] = now();
			if (write(sockets[i], request, REQUEST) != REQUEST)
				return perror("write"), 1;
		}
	}
	count = answered < SAMPLES ? answered : SAMPLES;
	if (count == 0)
		return fprintf(stderr, "no answer\n"), 1;
	qsort(samples, count, sizeof *samples, by_size);
	printf("%zu %u %u\n", answered, samples[count / 2], samples[count - 1 - count / 100]);
	return 0;
}
