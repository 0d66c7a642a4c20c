"""Self-made log lines in the manner of eight kinds of systems, each with the number of the template it was made from."""

# ruff: noqa: E501  -- log lines are as long as they are

from __future__ import annotations

import random
from collections.abc import Callable

Line = tuple[str, str]  # the line, the template it was made from
_NAMES = (
    "root", "admin", "oracle", "test", "guest", "ftpuser", "postgres", "webmaster", "alice", "bob", "carol", "dave", "erin",
    "frank", "mallory", "support", "pi", "ubnt",
)  # fmt: skip
_HOSTS = [
    f"{a}.{b}.{c}"
    for a in ("mail", "ws", "static", "dsl", "cpe")
    for b in ("north", "acme", "uni", "blue")
    for c in ("org", "com", "edu", "net")
]


class _Fields:
    """Random fields of log lines; deterministic for a seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def __getitem__(self, name: str) -> str:
        r = self.random
        made: dict[str, Callable[[], object]] = {
            "n": lambda: r.choice((r.randrange(10), r.randrange(100), r.randrange(10_000), r.randrange(10_000_000))),
            "d": lambda: r.randrange(10),
            "port": lambda: r.randrange(1024, 65_536),
            "ip": lambda: ".".join(str(r.randrange(1, 255)) for _ in range(4)),
            "name": lambda: r.choice(_NAMES),
            "host": lambda: r.choice(_HOSTS),
            "hex": lambda: f"0x{r.getrandbits(r.choice((16, 32, 48))):x}",
            "id": lambda: f"{r.getrandbits(32):08x}",
            "size": lambda: r.choice((f"{r.random() * 900:.2f} KB", f"{r.random() * 40:.1f} MB", f"{r.randrange(900)} B")),
            "bool": lambda: r.choice(("true", "false")),
            "cls": lambda: (
                "".join(r.choice(("Main", "Chat", "Home", "Login", "Video", "Album")) for _ in range(2)) + "Activity"
            ),
            "pkg": lambda: f"com.{r.choice(('acme', 'blue', 'north'))}.{r.choice(('chat', 'mail', 'music', 'maps', 'shop'))}",
            "rdd": lambda: f"rdd_{r.randrange(60)}_{r.randrange(60)}",
            "path": lambda: "/".join(
                [
                    "",
                    *(r.choice(("var", "data", "srv", "x1", "tmp", "lib")) for _ in range(r.randrange(2, 5))),
                    f"f{r.randrange(99)}",
                ]
            ),
            "life": lambda: r.choice(("<1 sec", f"{r.randrange(60):02}:{r.randrange(60):02}")),
            "node": lambda: f"{r.choice('abd')}n{r.randrange(1, 999)}",
        }
        return str(made[name]())


def _clock(count: int, seed: int) -> list[tuple[int, int, int]]:
    r = random.Random(seed)
    return [(r.randrange(24), r.randrange(60), r.randrange(60)) for _ in range(count)]


# System: its header (h, m, s and the fields above may appear), then templates with their weights.
_SYSTEMS: dict[str, tuple[str, list[tuple[int, str]]]] = {
    "secure-shell": (
        "Dec 10 {h:02}:{m:02}:{s:02} lab1 sshd[{n}]: ",
        [
            (20, "Failed password for invalid user {name} from {ip} port {port} ssh2"),
            (30, "Failed password for root from {ip} port {port} ssh2"),
            (20, "Received disconnect from {ip}: 11: Bye Bye [preauth]"),
            (12, "Invalid user {name} from {ip}"),
            (12, "input_userauth_request: invalid user {name} [preauth]"),
            (10, "pam_unix(sshd:auth): check pass; user unknown"),
            (12, "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={host} "),
            (14, "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost={ip}  user=root"),
            (8, "reverse mapping checking getaddrinfo for {host} [{ip}] failed - POSSIBLE BREAK-IN ATTEMPT!"),
            (8, "Connection closed by {ip} [preauth]"),
            (4, "Did not receive identification string from {ip}"),
            (2, "error: Received disconnect from {ip}: 3: com.jcraft.jsch.JSchException: Auth fail [preauth]"),
            (2, "Accepted password for {name} from {ip} port {port} ssh2"),
            (2, "message repeated {d} times: [ Failed password for root from {ip} port {port} ssh2]"),
        ],
    ),
    "proxy": (
        "[10.30 {h:02}:{m:02}:{s:02}] chrome.exe - ",
        [
            (30, "{host}:{port} open through proxy proxy.uni.edu:5070 HTTPS"),
            (30, "{host}:{port} close, {n} bytes sent, {n} bytes received, lifetime {life}"),
            (10, "{host}:{port} close, {n} bytes ({size}) sent, {n} bytes ({size}) received, lifetime {life}"),
            (
                4,
                "{host}:{port} error : Could not connect through proxy proxy.uni.edu:5070 - Proxy server cannot establish a connection with the target, status code {n}",
            ),
            (
                4,
                "{host}:{port} error : Could not connect to proxy proxy.uni.edu:5070 - connection attempt failed with error {n}",
            ),
        ],
    ),
    "servicing": (
        "2016-09-28 {h:02}:{m:02}:{s:02}, Info                  CBS    ",
        [
            (20, "SQM: Initializing online with Windows opt-in: {bool}"),
            (20, "SQM: Cleaning up report files older than {d} days."),
            (20, "Warning: Unrecognized packageExtended attribute."),
            (20, "Expecting attribute name [HRESULT = {hex} - CBS_E_MANIFEST_INVALID_ITEM]"),
            (10, "Failed to get next element [HRESULT = {hex} - CBS_E_MANIFEST_INVALID_ITEM]"),
            (10, "Session: {n}_{n} initialized by client WindowsUpdateAgent."),
            (
                6,
                "Read out cached package applicability for package: Package_for_KB{n}~31bf3856ad364e35~amd64~~6.1.1.{d}, ApplicableState: {d}, CurrentState:{d}",
            ),
            (4, "Loaded Servicing Stack v6.1.{n}.{n} with Core: C:\\Windows\\winsxs\\amd64_{id}\\cbscore.dll"),
            (3, "Starting TrustedInstaller initialization."),
            (3, "Ending TrustedInstaller initialization."),
            (3, "TrustedInstaller service starts successfully."),
            (
                2,
                "No startup processing required, TrustedInstaller service was not set as autostart, or else a reboot is still pending.",
            ),
        ],
    ),
    "desktop": (
        "Jul  1 {h:02}:{m:02}:{s:02} visitor-10-1-2-3 kernel[0]: ",
        [
            (
                16,
                "IOThunderboltSwitch<0>(0x0)::listenerCallback - Thunderbolt HPD packet for route = 0x0 port = {d} unplug = {d}",
            ),
            (10, "ARPT: {n}.{n}: wl0: setup_keepalive: interval {n}, retry_interval {d}, retry_count {d}"),
            (10, "ARPT: {n}.{n}: wl0: wl_update_tcpkeep_seq: Original Seq: {n}, Ack: {n}, Win size: {n}"),
            (8, "ARPT: {n}.{n}: AirPort_Brcm43xx::powerChange: System Sleep"),
            (6, "ARPT: {n}.{n}: AirPort_Brcm43xx::platformWoWEnable: WWEN[disable]"),
            (8, "en0: BSSID changed to {d}c:{d}b:{d}f:{d}a:{d}6:{d}d"),
            (6, "en0: channel changed to {n},+1"),
            (6, "AppleCamIn::systemWakeCall - messageType = {hex}"),
            (6, "RTC: PowerByCalendarDate setting ignored"),
            (4, "PM response took {n} ms (54, powerd)"),
            (3, "hibernate image path: {path}"),
            (3, "USBMSC Identifier (non-unique): {id} 0x{d}a{d} 0x{n} 0x{d}, {d}"),
        ],
    ),
    "phone": (
        "03-17 {h:02}:{m:02}:{s:02}.{n}  {port}  {port} D PowerManagerService: ",
        [
            (16, 'acquire lock={n}, flags=0x{d}, tag="View Lock", name={pkg}, ws=null, uid={n}, pid={n}'),
            (16, 'release:lock={n}, flg=0x{d}, tag="View Lock", name={pkg}", ws=null, uid={n}, pid={n}'),
            (
                12,
                "ready={bool},policy={d},wakefulness={d},wksummary=0x{d},uasummary=0x{d},bootcompleted={bool},boostinprogress={bool},waitmodeenable={bool},mode={bool},manual={n},auto=-1,adj=0.{n}userId={n}",
            ),
            (
                10,
                "printFreezingDisplayLogsopening app wtoken = AppWindowToken{{{id} token=Token{{{id} ActivityRecord{{{id} u0 {pkg}/.{cls} t{n}}}}}}}, allDrawn= {bool}, startingDisplayed =  {bool}",
            ),
            (
                8,
                "Skipping AppWindowToken{{{id} token=Token{{{id} ActivityRecord{{{id} u0 {pkg}/.{cls} t{n}}}}}}} -- going to hide",
            ),
            (8, "userActivityNoUpdateLocked: eventTime={n}, event={d}, flags=0x{d}, uid={n}"),
            (
                6,
                "Destroying surface Surface(name={pkg}/{pkg}.{cls}) called by com.android.server.wm.WindowStateAnimator.destroySurface:{n}",
            ),
            (5, "getRunningAppProcesses: caller {n} does not hold REAL_GET_TASKS; limiting output"),
            (5, "getRecentTasks: caller {n} does not hold REAL_GET_TASKS; limiting output"),
            (4, "cancelNotification,index:{d}"),
            (4, "Animating brightness: target={n}, rate={n}"),
            (3, "handleScreenOn"),
        ],
    ),
    "batch": (
        "17/06/09 {h:02}:{m:02}:{s:02} INFO storage.BlockManager: ",
        [
            (30, "Found block {rdd} locally"),
            (14, "Running task {d}.0 in stage {n}.0 (TID {n})"),
            (14, "Finished task {d}.0 in stage {n}.0 (TID {n}). {n} bytes result sent to driver"),
            (12, "Block {rdd} stored as values in memory (estimated size {size}, free {size})"),
            (8, "Block broadcast_{n} stored as values in memory (estimated size {size}, free {size})"),
            (8, "Block broadcast_{n}_piece{d} stored as bytes in memory (estimated size {size}, free {size})"),
            (8, "Got assigned task {n}"),
            (6, "Partition {rdd} not found, computing it"),
            (4, "Reading broadcast variable {n} took {n} ms"),
            (4, "Started reading broadcast variable {n}"),
            (4, "Input split: hdfs://{ip}:9000{path}:{n}+{n}"),
            (3, "Times: total = {n}, boot = {n}, init = {n}, finish = {n}"),
            (2, "Saved output of task 'attempt_{n}_{n}_m_{n}_{d}' to hdfs://{ip}:9000{path}"),
            (1, "Changing view acls to: yarn,{name}"),
            (1, "Registered signal handlers for [TERM, HUP, INT]"),
        ],
    ),
    "steps": (
        "20171223-{h}:{m}:{s}:{n}|Step_LSC|30002312|",
        [
            (20, "onStandStepChanged {n}"),
            (16, "calculateCaloriesWithCache totalCalories={n}"),
            (16, "getTodayTotalDetailSteps = {n}##{n}##{n}##{n}##{n}##{n}"),
            (10, "setTodayTotalDetailSteps={n}##{n}##{n}##{n}##{n}##{n}"),
            (10, "calculateAltitudeWithCache totalAltitude={n}"),
            (8, "onExtend:{n} {n} {d} {d}"),
            (8, "REPORT : {n} {n} {n} {n}"),
            (6, "onReceive action: android.intent.action.SCREEN_ON"),
            (6, "processHandleBroadcastAction action:android.intent.action.SCREEN_ON"),
            (3, "flush sensor data"),
            (2, "upLoadHealthData size is {n}"),
        ],
    ),
    "cluster": (
        "- 11315{port} 2005.11.09 {node} Nov 9 {h:02}:{m:02}:{s:02} {node}/{node} crond(pam_unix)[{n}]: ",
        [
            (20, "session opened for user {name} by (uid=0)"),
            (20, "session closed for user {name}"),
            (10, "(root) CMD (run-parts {path})"),
            (8, "data_thread() got not answer from any [Thunderbird_{node}] datasource"),
            (8, "connection from {ip} ({host}) at Wed Nov  9 12:{d}1:0{d} 2005"),
            (8, "DHCPDISCOVER from 00:11:43:e{d}:ba:c{d} via eth{d}: network A_net: no free leases"),
            (6, "synchronized to {ip}, stratum {d}"),
            (6, "{id}: from=root, size={n}, class=0, nrcpts={d}, msgid=<{n}.{id}@{host}>, relay=root@localhost"),
            (
                6,
                "{id}: to=root, ctladdr=root (0/0), delay=00:00:0{d}, xdelay=00:00:0{d}, mailer=relay, pri={n}, relay=[127.0.0.1], dsn=2.0.0, stat=Sent",
            ),
            (4, "Local endpoint connected on eth{d}"),
            (4, "scsi({d}:{d}:{d}:{d}): status {hex}, resid {n}"),
        ],
    ),
}


def system_names() -> list[str]:
    """The kinds of systems there are imitations of."""
    return list(_SYSTEMS)


def lines_of(system: str, count: int = 1000, seed: int = 1) -> list[Line]:
    """`count` lines of one system with their templates, in random order; the same for the same seed."""
    header, templates = _SYSTEMS[system]
    fields = _Fields(seed)
    chosen = fields.random.choices(range(len(templates)), [weight for weight, _ in templates], k=count)
    out = []
    for number, (h, m, s) in zip(chosen, _clock(count, seed), strict=True):
        template = templates[number][1]
        text = _filled(header, fields, h, m, s) + _filled(template, fields, h, m, s)
        out.append((text, f"{number}"))
    return out


def _filled(template: str, fields: _Fields, h: int, m: int, s: int) -> str:
    return template.format_map(_Lookup(fields, {"h": h, "m": m, "s": s}))


class _Lookup(dict[str, object]):
    """Fields by name for `format_map`: a new value at every look."""

    def __init__(self, fields: _Fields, fixed: dict[str, int]) -> None:
        super().__init__(fixed)
        self._fields = fields

    def __missing__(self, name: str) -> str:
        return self._fields[name]
