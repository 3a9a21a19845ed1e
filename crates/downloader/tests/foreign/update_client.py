"""Uses the service in the manner of the update client (specification, section 19).

update_client.py ADDRESS URL DESTINATION DIGEST SIGNATURE-URL SIGNATURE-DESTINATION
"""

import sys

import dbus
import dbus.bus
from dbus.mainloop.glib import DBusGMainLoop
from gi.repository import GLib

DBusGMainLoop(set_as_default=True)
address, url, destination, digest, signature_url, signature = sys.argv[1:]
loop = GLib.MainLoop()
bus = dbus.bus.BusConnection(address)
name = "com.canonical.applications.Downloader"
service = bus.get_object(name, "/")
manager = dbus.Interface(service, "com.canonical.applications.DownloadManager")

path = manager.createDownloadGroup(
    [(url, destination, digest), (signature_url, signature, "")],
    "sha256",
    False,
    {},
    {"User-Agent": "Ubuntu System Image Upgrade Client: device=lamp;channel=stable;build=1"},
)
group = dbus.Interface(
    bus.get_object(name, path), "com.canonical.applications.GroupDownload"
)
assert not group.isGSMDownloadAllowed(), "the argument is honoured"
group.allowGSMDownload(True)


def heard(name):
    def show(*arguments):
        if name != "progress":
            print(name, *[list(map(str, a)) if isinstance(a, dbus.Array) else a for a in arguments])
        if name in ("finished", "canceled", "error"):
            loop.quit()

    return show


for signal in ("canceled", "error", "finished", "paused", "progress", "resumed", "started"):
    bus.add_signal_receiver(heard(signal), signal_name=signal, path=path)

# "Download anyway": with no argument, as it has always been called.
found = manager.getAllDownloads()
assert found == [path], found
GLib.timeout_add_seconds(60, loop.quit)
group.start()
loop.run()
