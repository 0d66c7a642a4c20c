"""What people wrote: deploy notes, tickets and chat of the demo shop. Minutes count from the payments deploy.

`{t:N}` in a text is the clock time N minutes after the deploy, so that what people say is true for any start.
"""

from __future__ import annotations

from typing import NamedTuple


class Deploy(NamedTuple):
    """An entry of `deploys`; the key is `service-version`."""

    minute: float
    service: str
    version: str
    by: str
    notes: str


class Ticket(NamedTuple):
    """An entry of `tickets`: `minute` after the deploy, or for old ones `days` before it."""

    key: str
    minute: float
    days: int
    priority: str
    text: str


class Message(NamedTuple):
    """A chat message; `thread` groups replies under its first message and is the record's key."""

    minute: float
    channel: str
    thread: str
    user: str
    text: str


DEPLOYS = (
    Deploy(-66, "gateway", "5.31.2", "mira", "Renew the TLS certificate of the image host. No code change."),
    Deploy(-48, "inventory", "1.77.0", "tomas", "Supplier feed: accept semicolons as separators. Adds an index "
        "on feed_rows."),
    Deploy(-21, "checkout", "8.4.1", "lena", "Copy change on the shipping page; voucher banner for the weekend."),
    Deploy(
        0, "payments", "v2.14", "jonas",
        "payments v2.14 rolled out to production, 12 of 12 pods. PAY-1184: the database pool of payments was changed, "
        "maximumPoolSize goes from 20 to 8 to save connections on the shared cluster. PAY-1190: the bank gateway client "
        "retries a timed-out authorize up to 3 times. PAY-1197: new receipt e-mail layout.",
    ),
    Deploy(12, "accounts", "3.9.0", "priya", "Remember the last used language. Feature flag off by default."),
    Deploy(
        36, "payments", "v2.13.4", "jonas",
        "Rollback of payments from v2.14 to v2.13.4, 12 of 12 pods healthy. Restores maximumPoolSize 20 and "
        "switches the new bank "
        "retries off. v2.14 is blocked until PAY-1204 is done.",
    ),
    Deploy(61, "checkout", "8.4.2", "lena", "Shows a clearer message while a payment is being confirmed."),
)  # fmt: skip

TICKETS = (
    Ticket("T-4801", -55, 0, "low", "Where do I change the delivery address of an order I placed this morning?"),
    Ticket("T-4802", -32, 0, "low", "The size guide for hiking boots shows inches only, please add centimetres."),
    Ticket("T-4803", -11, 0, "normal", "My voucher WELCOME10 says already redeemed but I never used it."),
    Ticket(
        "T-4804",
        8,
        0,
        "high",
        "The spinner never ends when I pay. I waited five minutes and closed the tab, is my order placed?",
    ),
    Ticket(
        "T-4805",
        11,
        0,
        "high",
        "Cannot finish buying: after I press the pay button the page just hangs and then shows an error.",
    ),
    Ticket(
        "T-4806", 13, 0, "urgent", "My card was charged twice for one pair of shoes. My bank app shows two identical amounts."
    ),
    Ticket("T-4807", 15, 0, "normal", "How long does standard shipping to Spain take?"),
    Ticket(
        "T-4808",
        17,
        0,
        "urgent",
        "I was billed two times for the same basket and only one confirmation arrived. Please return the second amount.",
    ),
    Ticket(
        "T-4809",
        19,
        0,
        "high",
        "Purchase stuck: the shop says 'waiting for confirmation' since half an hour but the money is gone.",
    ),
    Ticket("T-4810", 22, 0, "high", "Tried three cards, all of them time out at the last step. Is your shop broken?"),
    Ticket(
        "T-4811",
        25,
        0,
        "urgent",
        "Paid once, debited double. I want my money back today or I will dispute it with my credit card company.",
    ),
    Ticket("T-4812", 27, 0, "normal", "Is the blue variant of the rain jacket coming back in stock?"),
    Ticket("T-4813", 31, 0, "high", "App freezes on 'processing your payment' on my iPhone, same on the website."),
    Ticket(
        "T-4814", 34, 0, "high", "Gave up after the fourth try to check out. Nothing happens after I confirm in my banking app."
    ),
    Ticket(
        "T-4815",
        44,
        0,
        "urgent",
        "Two withdrawals for one order last hour. The order itself looks fine now, who refunds the extra one?",
    ),
    Ticket("T-4816", 58, 0, "low", "Works again for me, thank you for the quick fix!"),
)

MARCH_TICKET = Ticket(
    "T-2291", 0, 250, "urgent",
    "Post-mortem of the evening outage: shoppers could not finish the last step for 52 minutes. HikariCP leak after the "
    "maxLifetime change: sessions to the database were thrown away faster than they came back, requests queued behind the "
    "few that were left, the acquirer ran into its deadline and some people were debited double. The outage was fixed by "
    "raising the pool to 50 and rolling back release 1.98. Follow-up: never change datasource settings together with retry "
    "behaviour; alert when threads wait for a session longer than 2 s.",
)  # fmt: skip

OLD_TICKETS = (
    "Invoice PDF shows the company name cut off after 30 characters.",
    "Customer asks to merge two accounts that use different e-mail addresses.",
    "Product photos of the winter catalogue load in the wrong order on tablets.",
    "Newsletter unsubscribe link leads to a page in Dutch.",
    "Search for 'trail shoes' lists sandals first since the synonym update.",
    "Parcel marked as delivered, but the neighbour has not received it either.",
    "Gift wrapping cannot be removed from the basket once it was added.",
    "Password reset mail arrives after the link has already expired.",
    "Filter by colour forgets the chosen size on the next page.",
    "Wholesale customer needs an export of last year's orders as a spreadsheet.",
    "Store finder sends people to the closed branch in Lyon.",
    "Voucher for returning customers is accepted twice on one order.",
    "Accessibility: the date picker cannot be used with a keyboard.",
    "Sitemap job failed overnight because the disk of the worker was full. Cleared old archives.",
    "Product reviews with emojis are shown as question marks.",
    "Wrong VAT rate for digital gift cards sold to Norway.",
    "Return label prints on two pages, the bar code is on the second.",
    "Warehouse scanner logs out every ten minutes since the wifi change.",
    "Order history shows cancelled orders as delivered.",
    "Translate the cookie banner to Polish.",
    "Stock of SKU-4471 went below zero after the import was started twice.",
    "Loyalty points of September are missing for customers from Belgium.",
    "The chat window covers the basket button on small phones.",
    "Slow category pages: a missing index on product_tags made listing take 4 s. Index added.",
    "Certificate of the image host expired; browsers showed a warning for 20 minutes. Renewed, reminder added.",
    "Redis ran out of memory and evicted carts of guests. Raised the limit and shortened their lifetime.",
    "Typo in the terms of sale, paragraph 7.",
    "Customer wants to be called by another first name in e-mails.",
    "Courier pick-up time in Hamburg changes to 15:30 from Monday.",
    "Images uploaded by the marketing team are 12 MB each and slow down the start page.",
    "Apple Wallet pass of the loyalty card does not open on older phones.",
    "Back-in-stock mails were sent for products that are discontinued.",
    "Two-factor codes by text message arrive late for one phone company.",
    "Supplier feed of Alpina contains prices in dollars instead of euros.",
    "DNS change of the blog made its old links answer 404.",
    "Add the new office address to the footer.",
    "Analytics: the conversion funnel counts bots as visitors.",
    "Fraud rule blocked honest customers from Switzerland; threshold adjusted.",
    "Refund of a returned tent went to a closed bank account, must be sent by cheque.",
    "Search index rebuild took nine hours since the catalogue doubled.",
    "Pagination of the orders API skips the last element.",
    "Employee discount is not applied to shipping costs.",
    "A customer received the parcel of somebody else with the same last name.",
    "The backup of the analytics database was empty for three days; the job had lost its permission.",
    "Checkout did not offer the pick-up point in Graz.",
    "Dark mode: prices are black on dark grey.",
    "Delete account request under GDPR, all data exported and erased.",
    "Kafka consumer of the mailer fell behind by 40,000 messages after a bad template. Template fixed.",
    "Login loop in Safari when third-party cookies are off.",
    "Product feed for price comparison sites misses the delivery time.",
    "Contact form sends the message twice when double-clicked.",
    "Clock of the Frankfurt worker drifted by three minutes, jobs ran early. Time sync repaired.",
    "Memory of the recommendation service grows by 2 GB a day; restart at night until the leak is found.",
    "Customer asks for an order by phone because she cannot see the screen well.",
    "Holiday banner still online in January.",
    "Packing slip lists internal article names.",
    "Kubernetes node was drained during the sale, pods took six minutes to move. Disruption budget added.",
    "Size L of the fleece jacket has the picture of size XS.",
    "Customs form for parcels to Norway lacks the tariff number.",
    "Bank holiday calendar of Scotland is missing in the delivery estimate.",
    "Exchange rates were not updated over the weekend because the provider changed its address.",
)

CHAT = (
    Message(-62, "#deploys", "c-101", "mira", "gateway 5.31.2 is out, certificate good until next year :lock:"),
    Message(-40, "#random", "c-102", "priya", "cake in the kitchen, first come first served"),
    Message(-39, "#random", "c-102", "tomas", "on my way :cake:"),
    Message(-20, "#deploys", "c-103", "lena", "checkout 8.4.1 live, weekend banner looks fine on mobile"),
    Message(-3, "#deploys", "c-104", "jonas", "starting payments v2.14 now, small config stuff and the bank retries"),
    Message(1, "#deploys", "c-104", "jonas", "payments v2.14 done, all pods green, going for coffee"),
    Message(9, "#oncall", "c-105", "lena", "anyone else see POST /api/pay go red on the gateway board? 504s since about {t:5}"),
    Message(9.6, "#oncall", "c-105", "mira", "looking. product pages are fine, only the payment step"),
    Message(10.5, "#oncall", "c-105", "tomas", "could be the CDN again? we had that in spring"),
    Message(11.2, "#oncall", "c-105", "mira", "no, api traffic does not go through the CDN. ruled out"),
    Message(
        13, "#oncall", "c-105", "priya", "I rolled out accounts 3.9.0 at {t:12}, but the errors are older than that, so not me"
    ),
    Message(14, "#oncall", "c-106", "lena", "support says people are charged double?! three tickets in ten minutes"),
    Message(14.8, "#oncall", "c-106", "dora", "four now. also many 'it just spins'. what do I tell them?"),
    Message(15.5, "#oncall", "c-106", "lena", "tell them we know, nobody will lose money, extra captures are held for review"),
    Message(
        17, "#oncall", "c-107", "tomas", "maybe the bank is down? authorize calls run into the 10 s limit and get sent again"
    ),
    Message(
        18.5,
        "#oncall",
        "c-107",
        "priya",
        "called their hotline: the bank was never down, all green on their side, answers in 300 ms",
    ),
    Message(19.2, "#oncall", "c-107", "tomas", "then our side is slow to pick up the answer..."),
    Message(20, "#oncall", "c-108", "mira", "redis failover? there was one last week"),
    Message(20.8, "#oncall", "c-108", "mira", "nope, redis is bored, hit rate 97%"),
    Message(
        22,
        "#oncall",
        "c-109",
        "jonas",
        "back. payments threads are all parked waiting for a database connection: active=8, waiting=60",
    ),
    Message(22.7, "#oncall", "c-109", "lena", "only 8? I thought we run with 20"),
    Message(23.5, "#oncall", "c-109", "jonas", "we did until {t:0}. v2.14 has the smaller pool from PAY-1184. that was me"),
    Message(
        24.4,
        "#oncall",
        "c-109",
        "priya",
        "and each retry to the bank holds its connection while it waits, so they are gone at once",
    ),
    Message(
        25.6,
        "#oncall",
        "c-109",
        "jonas",
        "and every retry to the bank gets a new idempotency key, that is why customers were charged twice",
    ),
    Message(27, "#oncall", "c-110", "tomas", "can we just raise the pool on the fly?"),
    Message(28, "#oncall", "c-110", "jonas", "needs a restart of all pods anyway. rolling back is safer"),
    Message(29.5, "#oncall", "c-110", "mira", "didn't we have this in March? T-something, pool and retries in one release"),
    Message(31, "#oncall", "c-110", "lena", "yes T-2291, same story. decision: roll back, no experiments"),
    Message(33, "#oncall", "c-110", "jonas", "rollback pipeline started"),
    Message(36.5, "#deploys", "c-111", "jonas", "payments back on v2.13.4 as of {t:36}"),
    Message(39, "#oncall", "c-112", "lena", "504s dropping fast, pay success back to 99%"),
    Message(41, "#oncall", "c-112", "dora", "no new tickets about double charges. I have a list of 37 orders to refund"),
    Message(44, "#oncall", "c-112", "mira", "all quiet. post-mortem tomorrow 10:00, jonas owns PAY-1204"),
    Message(52, "#random", "c-113", "tomas", "is there cake left? asking for the on-call"),
)
