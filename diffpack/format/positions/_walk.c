/* One walk over the keys of a span's words: what split.py does with numpy, where this could not be compiled.

   Every function takes keys of 1 or 2 bytes (`width`), and where it asks for classes, a table with the class of every
   key that so many bytes can hold. Arrays are contiguous; classes are uint16, all else is int64. The interpreter is let
   go of while a walk lasts. */

#define PY_SSIZE_T_CLEAN
#define Py_LIMITED_API 0x030b0000
#include <Python.h>
#include <stdint.h>
#include <string.h>

#define MOST_CLASSES 65536 /* what a uint16 can tell apart */

typedef Py_ssize_t Size;

/* Four tables, as a count that is raised twice in a row waits for itself. */
static void count_bytes(const uint8_t *keys, Size words, int64_t *counts)
{
    uint32_t tables[4][256];
    for (Size first = 0; first < words;) {
        Size stop = words - first > ((Size)1 << 30) ? first + ((Size)1 << 30) : words;
        memset(tables, 0, sizeof tables);
        for (; first + 4 <= stop; first += 4) {
            tables[0][keys[first]]++;
            tables[1][keys[first + 1]]++;
            tables[2][keys[first + 2]]++;
            tables[3][keys[first + 3]]++;
        }
        for (; first < stop; first++)
            tables[0][keys[first]]++;
        for (int key = 0; key < 256; key++)
            counts[key] += (int64_t)tables[0][key] + tables[1][key] + tables[2][key] + tables[3][key];
    }
}

static void count_pairs(const uint16_t *keys, Size words, int64_t *counts)
{
    for (Size word = 0; word < words; word++)
        counts[keys[word]]++;
}

/* `next` holds where in `order` the next word of each class goes. */
#define ORDER(NAME, KEY)                                                                                              \
    static int NAME(const KEY *keys, Size words, const uint16_t *table, int64_t *next, int64_t *order)               \
    {                                                                                                                 \
        for (Size word = 0; word < words; word++) {                                                                   \
            int64_t at = next[table[keys[word]]]++;                                                                   \
            if (at < 0 || at >= words)                                                                                \
                return -1;                                                                                            \
            order[at] = word;                                                                                         \
        }                                                                                                             \
        return 0;                                                                                                     \
    }

/* `seen` counts the words of each class so far. */
#define RANKS(NAME, KEY)                                                                                              \
    static int NAME(const KEY *keys, Size words, const uint16_t *table, int64_t *seen, const int64_t *places,        \
                    Size count, uint16_t *classes, int64_t *ranks)                                                    \
    {                                                                                                                 \
        Size word = 0;                                                                                                \
        for (Size change = 0; change < count; change++) {                                                             \
            Size place = places[change];                                                                              \
            if (place < word || place >= words)                                                                       \
                return -1;                                                                                            \
            for (; word < place; word++)                                                                              \
                seen[table[keys[word]]]++;                                                                            \
            classes[change] = table[keys[place]];                                                                     \
            ranks[change] = seen[classes[change]];                                                                    \
        }                                                                                                             \
        return 0;                                                                                                     \
    }

/* Of each class, `left` counts the words before its next change, `next` and `stops` bound its changes to come. */
#define SELECT(NAME, KEY)                                                                                             \
    static int NAME(const KEY *keys, Size words, const uint16_t *table, int64_t *left, int64_t *next,                \
                    const int64_t *stops, const int64_t *ranks, int64_t *places)                                      \
    {                                                                                                                 \
        for (Size word = 0; word < words; word++) {                                                                   \
            unsigned own = table[keys[word]];                                                                         \
            if (left[own]-- == 0) {                                                                                   \
                int64_t at = next[own]++;                                                                             \
                places[at] = word;                                                                                    \
                left[own] = at + 1 < stops[own] ? ranks[at + 1] - ranks[at] - 1 : INT64_MAX;                          \
            }                                                                                                         \
        }                                                                                                             \
        return 0;                                                                                                     \
    }

ORDER(order_bytes, uint8_t)
ORDER(order_pairs, uint16_t)
RANKS(ranks_bytes, uint8_t)
RANKS(ranks_pairs, uint16_t)
SELECT(select_bytes, uint8_t)
SELECT(select_pairs, uint16_t)

/* The buffers of one call, and how many items they must have. */
typedef struct {
    Py_buffer keys, table, rest[4];
    int held, width;
    Size words, classes;
} Call;

static void release(Call *call)
{
    PyBuffer_Release(&call->keys);
    PyBuffer_Release(&call->table);
    for (int at = 0; at < call->held; at++)
        PyBuffer_Release(&call->rest[at]);
}

static PyObject *finished(Call *call, int failed)
{
    release(call);
    if (failed) {
        PyErr_SetString(PyExc_ValueError, "arrays that do not fit one another");
        return NULL;
    }
    Py_RETURN_NONE;
}

static Size items(const Py_buffer *buffer) { return buffer->len / (Size)sizeof(int64_t); }

/* Whether the keys and the table are whole, and every class of the table is one of so many. */
static int fits(Call *call, Size classes)
{
    const uint16_t *table = call->table.buf;
    if ((call->width != 1 && call->width != 2) || call->keys.len % call->width || classes > MOST_CLASSES)
        return 0;
    call->words = call->keys.len / call->width;
    Size keys = call->width == 1 ? 256 : 65536;
    if (call->table.len != keys * (Size)sizeof(uint16_t))
        return 0;
    for (Size key = 0; key < keys; key++)
        if (table[key] >= classes)
            return 0;
    return 1;
}

static PyObject *walk_count(PyObject *self, PyObject *args)
{
    Py_buffer keys, counts;
    int width, fit;
    if (!PyArg_ParseTuple(args, "y*iw*", &keys, &width, &counts))
        return NULL;
    fit = (width == 1 || width == 2) && keys.len % width == 0 && items(&counts) == (width == 1 ? 256 : 65536);
    if (fit) {
        Py_BEGIN_ALLOW_THREADS;
        if (width == 1)
            count_bytes(keys.buf, keys.len, counts.buf);
        else
            count_pairs(keys.buf, keys.len / 2, counts.buf);
        Py_END_ALLOW_THREADS;
    }
    PyBuffer_Release(&keys);
    PyBuffer_Release(&counts);
    if (!fit) {
        PyErr_SetString(PyExc_ValueError, "arrays that do not fit one another");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *walk_order(PyObject *self, PyObject *args)
{
    Call call = {.held = 2};
    Py_buffer *next = &call.rest[0], *order = &call.rest[1];
    int failed;
    if (!PyArg_ParseTuple(args, "y*iy*w*w*", &call.keys, &call.width, &call.table, next, order))
        return NULL;
    failed = !fits(&call, items(next)) || items(order) != call.words;
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS;
        failed = call.width == 1 ? order_bytes(call.keys.buf, call.words, call.table.buf, next->buf, order->buf)
                                 : order_pairs(call.keys.buf, call.words, call.table.buf, next->buf, order->buf);
        Py_END_ALLOW_THREADS;
    }
    return finished(&call, failed);
}

static PyObject *walk_ranks(PyObject *self, PyObject *args)
{
    Call call = {.held = 4};
    Py_buffer *seen = &call.rest[0], *places = &call.rest[1], *classes = &call.rest[2], *ranks = &call.rest[3];
    int failed;
    if (!PyArg_ParseTuple(args, "y*iy*w*y*w*w*", &call.keys, &call.width, &call.table, seen, places, classes, ranks))
        return NULL;
    failed = !fits(&call, items(seen)) || items(ranks) != items(places) ||
             classes->len != items(places) * (Size)sizeof(uint16_t);
    if (!failed) {
        Py_BEGIN_ALLOW_THREADS;
        failed = call.width == 1 ? ranks_bytes(call.keys.buf, call.words, call.table.buf, seen->buf, places->buf,
                                               items(places), classes->buf, ranks->buf)
                                 : ranks_pairs(call.keys.buf, call.words, call.table.buf, seen->buf, places->buf,
                                               items(places), classes->buf, ranks->buf);
        Py_END_ALLOW_THREADS;
    }
    return finished(&call, failed);
}

/* Whether `bounds` cut the changes of all classes; sets `left` and `next` (2 x classes) for a walk. */
static int start_select(const int64_t *bounds, Size classes, const int64_t *ranks, Size changes, int64_t *state)
{
    if (bounds[0] != 0 || bounds[classes] != changes)
        return 0;
    for (Size own = 0; own < classes; own++) {
        if (bounds[own] > bounds[own + 1] || bounds[own + 1] > changes)
            return 0;
        state[own] = bounds[own] < bounds[own + 1] ? ranks[bounds[own]] : INT64_MAX;
        state[classes + own] = bounds[own];
    }
    return 1;
}

static PyObject *walk_select(PyObject *self, PyObject *args)
{
    Call call = {.held = 3};
    Py_buffer *bounds = &call.rest[0], *ranks = &call.rest[1], *places = &call.rest[2];
    int64_t *state = NULL;
    int failed;
    if (!PyArg_ParseTuple(args, "y*iy*y*y*w*", &call.keys, &call.width, &call.table, bounds, ranks, places))
        return NULL;
    Size classes = items(bounds) - 1;
    failed = classes < 1 || !fits(&call, classes) || items(places) != items(ranks);
    if (!failed) {
        state = PyMem_Malloc(2 * (size_t)classes * sizeof(int64_t));
        if (state == NULL) {
            release(&call);
            return PyErr_NoMemory();
        }
        failed = !start_select(bounds->buf, classes, ranks->buf, items(ranks), state);
    }
    if (!failed) {
        const int64_t *stops = (const int64_t *)bounds->buf + 1;
        Py_BEGIN_ALLOW_THREADS;
        if (call.width == 1)
            select_bytes(call.keys.buf, call.words, call.table.buf, state, state + classes, stops, ranks->buf,
                         places->buf);
        else
            select_pairs(call.keys.buf, call.words, call.table.buf, state, state + classes, stops, ranks->buf,
                         places->buf);
        Py_END_ALLOW_THREADS;
        for (Size own = 0; own < classes; own++)
            failed |= state[classes + own] != stops[own];
    }
    PyMem_Free(state);
    return finished(&call, failed);
}

static PyMethodDef methods[] = {
    {"count", walk_count, METH_VARARGS, "count(keys, width, counts): add how often each key occurs"},
    {"order", walk_order, METH_VARARGS, "order(keys, width, table, next, order): all words, class by class"},
    {"ranks", walk_ranks, METH_VARARGS,
     "ranks(keys, width, table, seen, places, classes, ranks): class and rank of the words at places (sorted)"},
    {"select", walk_select, METH_VARARGS,
     "select(keys, width, table, bounds, ranks, places): the words of ranks (sorted in each class)"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_walk", NULL, 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__walk(void) { return PyModuleDef_Init(&module); }
