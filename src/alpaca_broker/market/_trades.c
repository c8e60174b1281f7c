/* Whole frames of trades, from Alpaca's JSON to PUBLISH commands, without an object for each value.

   Owns nothing but speed. It reads the JSON that Alpaca sends every day (compact, plain strings,
   plain numbers, UTC) and writes what core/messages.py would write, to the byte. Whatever is
   different in the least makes it decline the whole frame, with nothing done, and Python reads it:
   so there is one place that decides what is an error, and it is not here.
   tests/market/test_trade_frames.py holds the two ways against each other. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <structmember.h>

#define MOST_TRADES 4096     /* of one frame */
#define MOST_SYMBOL 64       /* bytes; as core/market_data.py has it */
#define MOST_EXCHANGE 32
#define MOST_CONDITIONS 256
#define MOST_PART 256        /* bytes of what Python prepared */
#define MOST_DIGITS 15       /* what a double keeps, whatever the digits are */
#define MOST_INTEGER "9223372036854775807"
#define MOST_PAYLOAD (512 + MOST_SYMBOL + MOST_EXCHANGE + MOST_CONDITIONS + 2 * MOST_PART)

typedef struct {
    const char *at;
    Py_ssize_t n;
} Slice;

/* ---- Lane: one channel ------------------------------------------------------------------- */

typedef struct {
    PyObject_HEAD
    PyObject *head; /* bytes: the part of the command that never changes */
    long long seq;
} Lane;

static int lane_init(Lane *self, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"head", NULL};
    PyObject *head;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "S:Lane", names, &head))
        return -1;
    Py_INCREF(head);
    Py_XSETREF(self->head, head);
    self->seq = 0;
    return 0;
}

static void lane_dealloc(Lane *self)
{
    Py_XDECREF(self->head);
    Py_TYPE(self)->tp_free((PyObject *)self);
}

static PyMemberDef lane_members[] = {
    {"head", T_OBJECT_EX, offsetof(Lane, head), READONLY, NULL},
    {"seq", T_LONGLONG, offsetof(Lane, seq), 0, NULL},
    {NULL},
};

static PyTypeObject LaneType = {
    PyVarObject_HEAD_INIT(NULL, 0)
    .tp_name = "alpaca_broker.market._trades.Lane",
    .tp_doc = "One channel: the prepared command and the last `seq`.",
    .tp_basicsize = sizeof(Lane),
    .tp_flags = Py_TPFLAGS_DEFAULT,
    .tp_new = PyType_GenericNew,
    .tp_init = (initproc)lane_init,
    .tp_dealloc = (destructor)lane_dealloc,
    .tp_members = lane_members,
};

typedef struct {
    Slice whole, symbol, price, size, exchange, conditions, id;
    long long seconds;
    int micros;
    Lane *lane; /* borrowed */
} Trade;

/* ---- Reading: each returns what follows, or NULL to decline ------------------------------ */
/* What Python hands over ends with a NUL, which is no part of any value: no loop passes it. */

static const char *read_string(const char *at, Slice *found)
{
    if (*at != '"')
        return NULL;
    const char *from = ++at;
    while ((unsigned char)*at >= 0x20 && (unsigned char)*at < 0x7f && *at != '"' && *at != '\\')
        at++;
    if (*at != '"')
        return NULL;
    found->at = from;
    found->n = at - from;
    return at + 1;
}

static inline int is_digit(char c) { return c >= '0' && c <= '9'; }

/* A number that is not negative and has no exponent; *fraction are the digits behind the point. */
static const char *read_number(const char *at, Slice *found, Py_ssize_t *fraction)
{
    const char *from = at;
    if (!is_digit(*at) || (*at == '0' && is_digit(at[1])))
        return NULL;
    while (is_digit(*at))
        at++;
    *fraction = 0;
    Py_ssize_t digits = at - from;
    if (*at == '.') {
        const char *point = at++;
        while (is_digit(*at))
            at++;
        *fraction = at - point - 1;
        if (*fraction == 0)
            return NULL;
        digits += *fraction;
        if (digits > MOST_DIGITS)
            return NULL;
        /* Very small numbers have an exponent when they are written. */
        if (*from == '0' && point == from + 1 && strncmp(point + 1, "0000", 4) == 0)
            return NULL;
    } else if (digits >= 19 && (digits > 19 || memcmp(from, MOST_INTEGER, 19) > 0)) {
        return NULL;
    }
    found->at = from;
    found->n = at - from;
    return (*at == ',' || *at == '}') ? at : NULL;
}

/* As a float is written: a point, at least one digit behind it, and no zeros at the end. */
static const char *read_float(const char *at, Slice *found)
{
    Py_ssize_t fraction = 0;
    const char *next = read_number(at, found, &fraction);
    if (next == NULL || (fraction == 0 && found->n > MOST_DIGITS))
        return NULL;
    if (fraction > 0)
        while (found->at[found->n - 1] == '0')
            found->n--;
    if (found->at[found->n - 1] == '.')
        found->n--;
    return next;
}

static const char *read_size(const char *at, Slice *found)
{
    Py_ssize_t fraction = 0;
    const char *next = read_number(at, found, &fraction);
    if (next == NULL || fraction == 0)
        return next;
    while (found->at[found->n - 1] == '0')
        found->n--;
    if (found->at[found->n - 1] == '.')
        found->n += 1; /* 5.0 is a float and stays one */
    return next;
}

static const char *read_integer(const char *at, Slice *found)
{
    Py_ssize_t fraction = 0;
    const char *next = read_number(at, found, &fraction);
    return fraction == 0 ? next : NULL;
}

static const char *read_strings(const char *at, Slice *found)
{
    const char *from = at;
    Slice each;
    if (*at++ != '[')
        return NULL;
    if (*at != ']')
        for (;;) {
            if ((at = read_string(at, &each)) == NULL)
                return NULL;
            if (*at != ',')
                break;
            at++;
        }
    if (*at++ != ']')
        return NULL;
    found->at = from;
    found->n = at - from;
    return at;
}

static int two_digits(const char *at, int most)
{
    if (!is_digit(at[0]) || !is_digit(at[1]))
        return -1;
    int value = (at[0] - '0') * 10 + at[1] - '0';
    return value <= most ? value : -1;
}

/* Days since 1970 of a date of the Gregorian calendar, by counting from 1 March. */
static long long days_since_1970(int year, int month, int day)
{
    if (month <= 2)
        year--;
    int of_march = (month + 9) % 12;
    long long days = 365LL * year + year / 4 - year / 100 + year / 400;
    return days + (153 * of_march + 2) / 5 + day - 1 - 719468;
}

/* 2024-01-02T03:04:05.123456789Z, rounded to microseconds as the decoder of Python does. */
static const char *read_time(const char *at, Trade *trade)
{
    static const int lengths[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    Slice text;
    const char *next = read_string(at, &text);
    if (next == NULL || text.n < 20 || text.n > 30)
        return NULL;
    const char *s = text.at;
    if (s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':' ||
        s[text.n - 1] != 'Z')
        return NULL;
    int century = two_digits(s, 21), of_century = two_digits(s + 2, 99);
    int month = two_digits(s + 5, 12), day = two_digits(s + 8, 31);
    int hour = two_digits(s + 11, 23), minute = two_digits(s + 14, 59);
    int second = two_digits(s + 17, 59);
    if (century < 20 || of_century < 0 || month < 1 || day < 1 || hour < 0 || minute < 0 ||
        second < 0)
        return NULL;
    int year = century * 100 + of_century;
    int leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    if (day > lengths[month - 1] + (month == 2 && leap))
        return NULL;
    long long nanos = 0;
    Py_ssize_t digits = 0;
    if (text.n > 20) {
        if (s[19] != '.' || text.n < 22)
            return NULL;
        for (const char *d = s + 20; d < s + text.n - 1; d++, digits++) {
            if (!is_digit(*d))
                return NULL;
            nanos = nanos * 10 + (*d - '0');
        }
    }
    for (; digits < 9; digits++)
        nanos *= 10;
    trade->seconds = days_since_1970(year, month, day) * 86400 + hour * 3600 + minute * 60 + second;
    trade->micros = (int)((nanos + 500) / 1000);
    if (trade->micros == 1000000) {
        trade->micros = 0;
        trade->seconds++;
    }
    return next;
}

/* A value that nobody needs. */
static const char *read_other(const char *at)
{
    Slice any;
    Py_ssize_t fraction = 0;
    if (*at == '"')
        return read_string(at, &any);
    if (is_digit(*at))
        return read_number(at, &any, &fraction);
    if (strncmp(at, "true", 4) == 0 || strncmp(at, "null", 4) == 0)
        return at + 4;
    return strncmp(at, "false", 5) == 0 ? at + 5 : NULL;
}

static const char *read_trade(const char *at, Trade *trade)
{
    enum { T = 1, S = 2, P = 4, TIME = 8 };
    int seen = 0;
    Slice key, kind;
    memset(trade, 0, sizeof *trade);
    trade->whole.at = at;
    if (*at != '{')
        return NULL;
    do {
        at = read_string(at + 1, &key);
        if (at == NULL || *at++ != ':')
            return NULL;
        int is_null = strncmp(at, "null", 4) == 0;
        Slice *optional = NULL;
        char name = key.n == 1 ? *key.at : 0;
        switch (name) {
        case 'T':
            at = read_string(at, &kind);
            if (seen & T || at == NULL || kind.n != 1 || *kind.at != 't')
                return NULL;
            seen |= T;
            break;
        case 'S':
            at = read_string(at, &trade->symbol);
            if (seen & S || at == NULL || trade->symbol.n < 1 || trade->symbol.n > MOST_SYMBOL)
                return NULL;
            seen |= S;
            break;
        case 'p':
            if (seen & P || (at = read_float(at, &trade->price)) == NULL)
                return NULL;
            seen |= P;
            break;
        case 't':
            if (seen & TIME || (at = read_time(at, trade)) == NULL)
                return NULL;
            seen |= TIME;
            break;
        case 's': optional = &trade->size; break;
        case 'x': optional = &trade->exchange; break;
        case 'c': optional = &trade->conditions; break;
        case 'i': optional = &trade->id; break;
        default:
            if ((at = read_other(at)) == NULL)
                return NULL;
        }
        if (optional != NULL) {
            if (optional->at != NULL)
                return NULL; /* twice */
            if (is_null) {
                optional->at = at;
                at += 4;
            } else if (name == 's') {
                at = read_size(at, optional);
            } else if (name == 'i') {
                at = read_integer(at, optional);
            } else if (name == 'c') {
                at = read_strings(at, optional);
                if (optional->n > MOST_CONDITIONS)
                    return NULL;
            } else {
                at = read_string(at, optional);
                if (optional->n > MOST_EXCHANGE)
                    return NULL;
                if (optional->n == 0)
                    return NULL; /* "" is not null */
            }
            if (at == NULL)
                return NULL;
        }
    } while (*at == ',');
    if (*at++ != '}' || seen != (T | S | P | TIME))
        return NULL;
    trade->whole.n = at - trade->whole.at;
    return at;
}

/* How many trades a frame holds, 0 to decline it. The array is the caller's to free. */
static Py_ssize_t read_frame(PyObject *frame, Trade **found)
{
    const char *at;
    Py_ssize_t size;
    if (PyUnicode_Check(frame)) {
        if (!PyUnicode_IS_ASCII(frame))
            return 0;
        at = (const char *)PyUnicode_1BYTE_DATA(frame);
        size = PyUnicode_GET_LENGTH(frame);
    } else if (PyBytes_Check(frame)) {
        at = PyBytes_AS_STRING(frame);
        size = PyBytes_GET_SIZE(frame);
    } else {
        return 0;
    }
    const char *end = at + size;
    Py_ssize_t n = 0, room = 16;
    if (*at != '[')
        return 0;
    Trade *trades = PyMem_Malloc(room * sizeof(Trade));
    if (trades == NULL)
        return 0;
    do {
        if (n == room) {
            Trade *more = n < MOST_TRADES ? PyMem_Realloc(trades, (room *= 4) * sizeof(Trade)) : NULL;
            if (more == NULL)
                goto declined;
            trades = more;
        }
        if ((at = read_trade(at + 1, &trades[n])) == NULL)
            goto declined;
        n++;
    } while (*at == ',');
    if (at[0] != ']' || at + 1 != end)
        goto declined;
    *found = trades;
    return n;
declined:
    PyMem_Free(trades);
    return 0;
}

/* ---- Writing ----------------------------------------------------------------------------- */

static inline char *put(char *to, const char *from, Py_ssize_t n)
{
    memcpy(to, from, n);
    return to + n;
}

#define PUT(to, text) put(to, text, sizeof(text) - 1)

static char *put_integer(char *to, long long value)
{
    char digits[24], *at = digits + sizeof digits;
    do {
        *--at = (char)('0' + value % 10);
        value /= 10;
    } while (value);
    return put(to, at, digits + sizeof digits - at);
}

static char *put_micros(char *to, int micros)
{
    *to++ = '.';
    for (int unit = 100000; unit; unit /= 10) {
        *to++ = (char)('0' + micros / unit);
        micros %= unit;
        if (micros == 0)
            break;
    }
    return to;
}

static char *put_or_null(char *to, Slice value, const char *around)
{
    if (value.n == 0)
        return PUT(to, "null");
    to = put(to, around, strlen(around));
    to = put(to, value.at, value.n);
    return put(to, around, strlen(around));
}

static char *put_payload(char *to, const Trade *trade, PyObject *middle, long long seq, PyObject *end)
{
    to = PUT(to, "{\"type\":\"price_update\",\"symbol\":\"");
    to = put(to, trade->symbol.at, trade->symbol.n);
    to = PUT(to, "\",\"price\":");
    to = put(to, trade->price.at, trade->price.n);
    if (memchr(trade->price.at, '.', trade->price.n) == NULL)
        to = PUT(to, ".0");
    to = PUT(to, ",\"timestamp\":");
    to = put_integer(to, trade->seconds);
    to = put_micros(to, trade->micros);
    to = PUT(to, ",\"size\":");
    to = put_or_null(to, trade->size, "");
    to = PUT(to, ",\"exchange\":");
    to = put_or_null(to, trade->exchange, "\"");
    to = PUT(to, ",\"conditions\":");
    to = put_or_null(to, trade->conditions, "");
    to = PUT(to, ",\"trade_id\":");
    to = put_or_null(to, trade->id, "");
    to = put(to, PyBytes_AS_STRING(middle), PyBytes_GET_SIZE(middle));
    to = put_integer(to, seq);
    return put(to, PyBytes_AS_STRING(end), PyBytes_GET_SIZE(end));
}

static PyObject *command_of(PyObject *head, const char *payload, Py_ssize_t size)
{
    char length[32], *at = length;
    *at++ = '$';
    at = put_integer(at, size);
    at = PUT(at, "\r\n");
    Py_ssize_t whole = PyBytes_GET_SIZE(head) + (at - length) + size + 2;
    PyObject *command = PyBytes_FromStringAndSize(NULL, whole);
    if (command == NULL)
        return NULL;
    char *to = put(PyBytes_AS_STRING(command), PyBytes_AS_STRING(head), PyBytes_GET_SIZE(head));
    to = put(to, length, at - length);
    to = put(to, payload, size);
    PUT(to, "\r\n");
    return command;
}

/* ---- What Python calls ------------------------------------------------------------------- */

static Lane *lane_of(PyObject *lanes, PyObject *symbol)
{
    PyObject *lane = PyDict_GetItemWithError(lanes, symbol);
    return lane != NULL && Py_IS_TYPE(lane, &LaneType) ? (Lane *)lane : NULL;
}

static PyObject *publish(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 6 || !PyDict_Check(args[1]) || !PyDict_Check(args[2]) || !PyDict_Check(args[3]) ||
        !PyBytes_Check(args[4]) || !PyBytes_Check(args[5])) {
        PyErr_SetString(PyExc_TypeError, "publish(frame, lanes, latest, dirty, middle, end)");
        return NULL;
    }
    PyObject *lanes = args[1], *latest = args[2], *dirty = args[3], *middle = args[4], *end = args[5];
    Trade *trades;
    Py_ssize_t n;
    if (PyBytes_GET_SIZE(middle) > MOST_PART || PyBytes_GET_SIZE(end) > MOST_PART ||
        (n = read_frame(args[0], &trades)) == 0)
        Py_RETURN_NONE;
    PyObject *commands = PyList_New(0), *symbols = PyList_New(n);
    int declined = 0;
    if (commands == NULL || symbols == NULL)
        goto failed;
    /* All lanes first: nothing has happened yet where one of them is not there. */
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *symbol = PyUnicode_FromStringAndSize(trades[i].symbol.at, trades[i].symbol.n);
        if (symbol == NULL)
            goto failed;
        PyList_SET_ITEM(symbols, i, symbol);
        if ((trades[i].lane = lane_of(lanes, symbol)) == NULL) {
            declined = !PyErr_Occurred();
            goto failed;
        }
    }
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *symbol = PyList_GET_ITEM(symbols, i);
        Lane *lane = trades[i].lane;
        char text[MOST_PAYLOAD];
        Py_ssize_t size = put_payload(text, &trades[i], middle, ++lane->seq, end) - text;
        PyObject *command = command_of(lane->head, text, size);
        PyObject *payload = PyBytes_FromStringAndSize(text, size);
        int ok = command != NULL && payload != NULL && PyList_Append(commands, command) == 0 &&
                 PyDict_SetItem(latest, symbol, payload) == 0 &&
                 PyDict_SetItem(dirty, symbol, Py_None) == 0;
        Py_XDECREF(command);
        Py_XDECREF(payload);
        if (!ok)
            goto failed;
    }
    PyMem_Free(trades);
    Py_DECREF(symbols);
    return commands;
failed:
    PyMem_Free(trades);
    Py_XDECREF(commands);
    Py_XDECREF(symbols);
    if (declined)
        Py_RETURN_NONE;
    return NULL;
}

/* (trade, received_at, stands for) of a symbol; what is known of it is changed in place where nobody
   else holds it, which is the usual case and saves most of the cost. */
static int put_entry(PyObject *kept, PyObject *symbol, PyObject *known, PyObject *whole,
                     PyObject *received_at, long stands_for)
{
    PyObject *count = PyLong_FromLong(stands_for);
    if (count == NULL)
        return 0;
    PyObject *values[] = {whole, received_at, count};
    PyObject *entry = known != NULL && Py_REFCNT(known) == 1 ? known : PyTuple_New(3);
    if (entry == NULL) {
        Py_DECREF(count);
        return 0;
    }
    for (int i = 0; i < 3; i++) {
        PyObject *old = entry == known ? PyTuple_GET_ITEM(entry, i) : NULL;
        Py_INCREF(values[i]);
        PyTuple_SET_ITEM(entry, i, values[i]);
        Py_XDECREF(old);
    }
    Py_DECREF(count);
    if (entry == known)
        return 1;
    int ok = PyDict_SetItem(kept, symbol, entry) == 0;
    Py_DECREF(entry);
    return ok;
}

static PyObject *keep(PyObject *module, PyObject *const *args, Py_ssize_t count)
{
    if (count != 3 || !PyDict_Check(args[1])) {
        PyErr_SetString(PyExc_TypeError, "keep(frame, kept, received_at)");
        return NULL;
    }
    PyObject *kept = args[1];
    Trade *trades;
    Py_ssize_t n = read_frame(args[0], &trades);
    if (n == 0)
        Py_RETURN_NONE;
    long replaced = 0;
    for (Py_ssize_t i = 0; i < n; i++) {
        PyObject *symbol = PyUnicode_FromStringAndSize(trades[i].symbol.at, trades[i].symbol.n);
        PyObject *whole = PyBytes_FromStringAndSize(trades[i].whole.at, trades[i].whole.n);
        int ok = symbol != NULL && whole != NULL;
        PyObject *known = ok ? PyDict_GetItemWithError(kept, symbol) : NULL;
        ok = ok && !PyErr_Occurred();
        if (ok && known != NULL && PyTuple_CheckExact(known) && PyTuple_GET_SIZE(known) == 3) {
            long stands_for = PyLong_AsLong(PyTuple_GET_ITEM(known, 2));
            replaced++;
            ok = stands_for >= 0 && put_entry(kept, symbol, known, whole, args[2], stands_for + 1);
        } else if (ok) {
            ok = put_entry(kept, symbol, NULL, whole, args[2], 0);
        }
        Py_XDECREF(symbol);
        Py_XDECREF(whole);
        if (!ok) {
            PyMem_Free(trades);
            return PyErr_Occurred() ? NULL : PyErr_NoMemory();
        }
    }
    PyMem_Free(trades);
    return PyLong_FromLong(replaced);
}

static PyMethodDef methods[] = {
    {"publish", (PyCFunction)(void (*)(void))publish, METH_FASTCALL,
     "publish(frame, lanes, latest, dirty, middle, end): the commands, or None to decline."},
    {"keep", (PyCFunction)(void (*)(void))keep, METH_FASTCALL,
     "keep(frame, kept, received_at): how many newer trades replaced, or None to decline."},
    {NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "_trades",
    .m_doc = "Whole frames of trades, from Alpaca's JSON to PUBLISH commands.",
    .m_size = -1,
    .m_methods = methods,
};

PyMODINIT_FUNC PyInit__trades(void)
{
    if (PyType_Ready(&LaneType) < 0)
        return NULL;
    PyObject *self = PyModule_Create(&module);
    if (self == NULL)
        return NULL;
    Py_INCREF(&LaneType);
    if (PyModule_AddObject(self, "Lane", (PyObject *)&LaneType) < 0) {
        Py_DECREF(&LaneType);
        Py_DECREF(self);
        return NULL;
    }
    return self;
}
