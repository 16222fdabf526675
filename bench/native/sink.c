/*
 * sink.c
 *		A server that speaks as much of Qdrant's REST as a mirror and a query need,
 *		answers at once and keeps no point.
 *
 * A program of its own: prints its port, serves 127.0.0.1 with a thread for each
 * connection, and ends when its standard input does, so that it never outlives
 * bench/run.  Collections and aliases are kept, since the fence looks at them.
 *
 *		GET  /sink/stats			{"requests":…,"points":…,"deletes":…,"bytes":…}
 *		POST /sink/mode?hold=1		writes of points wait until hold=0
 *		POST /sink/mode?count=1		points in bodies are counted (costs time)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <jansson.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define HEAD_BYTES 16384
#define NAME_BYTES 256
#define MAX_NAMES 1024

typedef struct Connection
{
	int			fd;
	char	   *in;				/* head, body, and what came after them */
	size_t		size;
	size_t		used;
	char	   *out;			/* answer under way */
	size_t		out_size;
	size_t		out_used;
} Connection;

typedef struct Request
{
	char		method[8];
	char		path[1024];
	char		arguments[256];
	char	   *body;
	size_t		length;
	char		after;			/* byte behind the body, which a NUL replaces meanwhile */
} Request;

typedef struct Name
{
	char		name[NAME_BYTES];
	char	   *value;			/* of a collection: its vectors; of an alias: its collection */
} Name;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static Name collections[MAX_NAMES];
static Name aliases[MAX_NAMES];
static bool hold = false;
static bool count = false;
static long requests = 0;
static long points = 0;
static long deletes = 0;
static long bytes = 0;

/* ---- names ---- */

static Name *
find_name(Name *names, const char *name)
{
	for (int i = 0; i < MAX_NAMES; i++)
	{
		if (names[i].value != NULL && strcmp(names[i].name, name) == 0)
			return &names[i];
	}
	return NULL;
}

static void
drop_name(Name *names, const char *name)
{
	Name	   *found = find_name(names, name);

	if (found == NULL)
		return;
	free(found->value);
	found->value = NULL;
}

static void
set_name(Name *names, const char *name, const char *value)
{
	drop_name(names, name);
	for (int i = 0; i < MAX_NAMES; i++)
	{
		if (names[i].value == NULL)
		{
			snprintf(names[i].name, NAME_BYTES, "%s", name);
			names[i].value = strdup(value);
			return;
		}
	}
}

static bool
is_known(const char *name)
{
	return find_name(collections, name) != NULL || find_name(aliases, name) != NULL;
}

/* ---- answers ---- */

static void
put(Connection *c, const char *format,...)
{
	va_list		args;
	int			n;

	for (;;)
	{
		va_start(args, format);
		n = vsnprintf(c->out + c->out_used, c->out_size - c->out_used, format, args);
		va_end(args);
		if (c->out_used + n < c->out_size)
			break;
		c->out_size = c->out_size * 2 + n + 1;
		c->out = realloc(c->out, c->out_size);
	}
	c->out_used += n;
}

static bool
send_answer(Connection *c, int status)
{
	char		head[256];
	int			n = snprintf(head, sizeof(head), "HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n"
							 "content-length: %zu\r\n\r\n", status, status == 200 ? "OK" : "Not Found",
							 c->out_used);
	struct iovec parts[2] = {{head, n}, {c->out, c->out_used}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
	size_t		all = n + c->out_used;
	ssize_t		sent = sendmsg(c->fd, &message, MSG_NOSIGNAL);

	/* An answer that the socket's buffer cannot hold goes on behind its head. */
	while (sent >= n && (size_t) sent < all)
	{
		ssize_t		more = send(c->fd, c->out + (sent - n), all - sent, MSG_NOSIGNAL);

		if (more <= 0)
			return false;
		sent += more;
	}
	c->out_used = 0;
	return sent == (ssize_t) all;
}

static bool
answer_result(Connection *c, const char *result)
{
	put(c, "{\"result\":%s,\"status\":\"ok\",\"time\":0.0001}", result);
	return send_answer(c, 200);
}

static bool
answer_missing(Connection *c, const char *name)
{
	put(c, "{\"status\":{\"error\":\"Not found: Collection `%s` doesn't exist!\"},\"time\":0.0001}", name);
	return send_answer(c, 404);
}

static bool
answer_aliases(Connection *c, const char *collection)
{
	const char *comma = "";

	put(c, "{\"result\":{\"aliases\":[");
	for (int i = 0; i < MAX_NAMES; i++)
	{
		if (aliases[i].value == NULL || (collection != NULL && strcmp(aliases[i].value, collection) != 0))
			continue;
		put(c, "%s{\"alias_name\":\"%s\",\"collection_name\":\"%s\"}", comma, aliases[i].name, aliases[i].value);
		comma = ",";
	}
	put(c, "]},\"status\":\"ok\",\"time\":0.0001}");
	return send_answer(c, 200);
}

static bool
answer_info(Connection *c, const Name *collection)
{
	put(c, "{\"result\":{\"status\":\"green\",\"optimizer_status\":\"ok\",\"points_count\":0,\"config\":{\"params\":"
		"{\"vectors\":%s,\"shard_number\":1,\"replication_factor\":1}}},\"status\":\"ok\",\"time\":0.0001}",
		collection->value);
	return send_answer(c, 200);
}

/* As many hits as were asked for, with the payload of the benchmark's table. */
static bool
answer_query(Connection *c, const Request *r)
{
	const char *asked = strstr(r->body, "\"limit\":");
	int			k = asked ? atoi(asked + strlen("\"limit\":")) : 10;

	put(c, "{\"result\":{\"points\":[");
	for (int i = 0; i < k; i++)
		put(c, "%s{\"id\":%d,\"version\":1,\"score\":%.7f,\"payload\":{\"title\":\"title number %d of the benchmark\","
			"\"category\":\"category %d\",\"price\":%d.99}}", i ? "," : "", i + 1, 0.95 - i * 0.0001, i + 1, i % 10, i);
	put(c, "]},\"status\":\"ok\",\"time\":0.0001}");
	return send_answer(c, 200);
}

/* ---- requests ---- */

static long
count_text(const char *in, size_t length, const char *what)
{
	long		n = 0;
	const char *end = in + length;

	while ((in = memmem(in, end - in, what, strlen(what))) != NULL)
	{
		n++;
		in += strlen(what);
	}
	return n;
}

static bool
answer_write(Connection *c, const Request *r, bool is_delete)
{
	pthread_mutex_lock(&lock);
	requests++;
	bytes += r->length;
	if (count && is_delete)
		deletes += count_text(r->body, r->length, ",") + 1;
	else if (count)
		points += count_text(r->body, r->length, "{\"id\":");
	while (hold)
		pthread_cond_wait(&released, &lock);
	put(c, "{\"result\":{\"operation_id\":%ld,\"status\":\"completed\"},\"status\":\"ok\",\"time\":0.0001}", requests);
	pthread_mutex_unlock(&lock);
	return send_answer(c, 200);
}

static const char *
string_of(json_t *object, const char *key)
{
	const char *value = json_string_value(json_object_get(object, key));

	return value ? value : "";
}

static void
change_aliases(const Request *r)
{
	json_t	   *document = json_loadb(r->body, r->length, 0, NULL);
	json_t	   *action;
	size_t		i;

	json_array_foreach(json_object_get(document, "actions"), i, action)
	{
		json_t	   *create = json_object_get(action, "create_alias");
		json_t	   *rename = json_object_get(action, "rename_alias");
		json_t	   *delete = json_object_get(action, "delete_alias");
		Name	   *old = rename ? find_name(aliases, string_of(rename, "old_alias_name")) : NULL;

		if (create != NULL)
			set_name(aliases, string_of(create, "alias_name"), string_of(create, "collection_name"));
		if (old != NULL)
			snprintf(old->name, NAME_BYTES, "%s", string_of(rename, "new_alias_name"));
		if (delete != NULL)
			drop_name(aliases, string_of(delete, "alias_name"));
	}
	json_decref(document);
}

static void
make_collection(const Request *r, const char *name)
{
	json_t	   *document = json_loadb(r->body, r->length, 0, NULL);
	char	   *vectors = json_dumps(json_object_get(document, "vectors"), JSON_COMPACT);

	set_name(collections, name, vectors ? vectors : "{}");
	free(vectors);
	json_decref(document);
}

static bool
answer_control(Connection *c, const Request *r)
{
	const char *held = strstr(r->arguments, "hold=");
	const char *counted = strstr(r->arguments, "count=");

	pthread_mutex_lock(&lock);
	if (held != NULL)
		hold = held[5] == '1';
	if (counted != NULL)
		count = counted[6] == '1';
	pthread_cond_broadcast(&released);
	put(c, "{\"requests\":%ld,\"points\":%ld,\"deletes\":%ld,\"bytes\":%ld}", requests, points, deletes, bytes);
	pthread_mutex_unlock(&lock);
	return send_answer(c, 200);
}

/* rest: what follows the collection's name in the path. */
static bool
answer_collection(Connection *c, const Request *r, const char *name, const char *rest)
{
	bool		get = strcmp(r->method, "GET") == 0;

	if (rest[0] == '\0' && strcmp(r->method, "PUT") == 0)
	{
		make_collection(r, name);
		return answer_result(c, "true");
	}
	if (!is_known(name))
		return answer_missing(c, name);
	if (strcmp(rest, "/points") == 0 || strcmp(rest, "/points/delete") == 0)
		return answer_write(c, r, rest[7] != '\0');
	if (strcmp(rest, "/points/query") == 0)
		return answer_query(c, r);
	if (strcmp(rest, "/points/scroll") == 0)
		return answer_result(c, "{\"points\":[],\"next_page_offset\":null}");
	if (strcmp(rest, "/aliases") == 0)
		return answer_aliases(c, name);
	if (rest[0] == '\0' && get && find_name(collections, name) != NULL)
		return answer_info(c, find_name(collections, name));
	if (rest[0] == '\0' && strcmp(r->method, "DELETE") == 0)
	{
		drop_name(collections, name);
		return answer_result(c, "true");
	}
	return answer_missing(c, name);
}

static bool
answer(Connection *c, const Request *r)
{
	char		name[NAME_BYTES];
	const char *collection;
	size_t		length;

	if (strcmp(r->path, "/") == 0)
	{
		put(c, "{\"title\":\"qdrant - vector search engine\",\"version\":\"1.19.0\",\"commit\":\"\"}");
		return send_answer(c, 200);
	}
	if (strncmp(r->path, "/sink/", 6) == 0)
		return answer_control(c, r);
	if (strcmp(r->path, "/cluster") == 0)
		return answer_result(c, "{\"status\":\"disabled\"}");
	if (strcmp(r->path, "/aliases") == 0)
		return answer_aliases(c, NULL);
	if (strcmp(r->path, "/collections/aliases") == 0)
	{
		change_aliases(r);
		return answer_result(c, "true");
	}
	if (strncmp(r->path, "/collections/", 13) != 0)
		return answer_missing(c, r->path);
	collection = r->path + 13;
	length = strcspn(collection, "/");
	snprintf(name, sizeof(name), "%.*s", (int) length, collection);
	return answer_collection(c, r, name, collection + length);
}

static bool
receive(Connection *c)
{
	ssize_t		n;

	if (c->size - c->used < 65536)
	{
		c->size = c->size * 2 + 2 * 65536;
		c->in = realloc(c->in, c->size);
	}
	n = recv(c->fd, c->in + c->used, c->size - c->used - 1, 0);
	if (n <= 0)
		return false;
	c->used += n;
	c->in[c->used] = '\0';
	return true;
}

/* The next whole request; its length in *length.  False: the connection is over. */
static bool
read_request(Connection *c, Request *r, size_t *length)
{
	char	   *end;
	char	   *field;
	char	   *question;
	size_t		body = 0;
	size_t		head;

	while (c->used == 0 || (end = strstr(c->in, "\r\n\r\n")) == NULL)
	{
		if (c->used > HEAD_BYTES || !receive(c))
			return false;
	}
	*end = '\0';
	head = end - c->in + 4;
	field = strcasestr(c->in, "\r\ncontent-length:");
	if (field != NULL)
		body = strtoul(field + strlen("\r\ncontent-length:"), NULL, 10);
	if (sscanf(c->in, "%7s %1023s", r->method, r->path) != 2)
		return false;
	question = strchr(r->path, '?');
	snprintf(r->arguments, sizeof(r->arguments), "%s", question ? question + 1 : "");
	if (question != NULL)
		*question = '\0';
	while (c->used < head + body)
	{
		if (!receive(c))
			return false;
	}
	r->body = c->in + head;
	r->length = body;
	r->after = r->body[body];
	r->body[body] = '\0';
	*length = head + body;
	return true;
}

static void *
serve(void *arg)
{
	Connection	c = {.fd = (int) (long) arg};
	Request		r;
	size_t		length;

	while (read_request(&c, &r, &length))
	{
		bool		quick = strstr(r.path, "/points") != NULL || strncmp(r.path, "/sink", 5) == 0;
		bool		sent;

		/* Names change only outside the measured part. */
		if (!quick)
			pthread_mutex_lock(&lock);
		sent = answer(&c, &r);
		if (!quick)
			pthread_mutex_unlock(&lock);
		if (!sent)
			break;
		r.body[r.length] = r.after;
		memmove(c.in, c.in + length, c.used - length + 1);
		c.used -= length;
	}
	close(c.fd);
	free(c.in);
	free(c.out);
	return NULL;
}

static void *
accept_all(void *arg)
{
	for (;;)
	{
		int			fd = accept((int) (long) arg, NULL, NULL);
		int			on = 1;
		pthread_t	thread;

		if (fd < 0)
			continue;
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
		if (pthread_create(&thread, NULL, serve, (void *) (long) fd) == 0)
			pthread_detach(thread);
		else
			close(fd);
	}
	return NULL;
}

int
main(void)
{
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t	length = sizeof(address);
	int			fd = socket(AF_INET, SOCK_STREAM, 0);
	pthread_t	thread;
	char		nothing;

	if (fd < 0 || bind(fd, (struct sockaddr *) &address, length) != 0 || listen(fd, 512) != 0 ||
		getsockname(fd, (struct sockaddr *) &address, &length) != 0 ||
		pthread_create(&thread, NULL, accept_all, (void *) (long) fd) != 0)
	{
		perror("sink");
		return 1;
	}
	printf("%d\n", ntohs(address.sin_port));
	fflush(stdout);
	while (read(0, &nothing, 1) > 0)
		;
	return 0;
}
