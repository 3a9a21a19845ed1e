// A program that uses the published client library, and prints what it hears.
//
// client URL DIGEST: downloads URL, limited at first, with a pause in the middle; then lists it.

#include <cstdio>
#include <memory>
#include <lomiri/download_manager/download.h>
#include <lomiri/download_manager/downloads_list.h>
#include <lomiri/download_manager/download_struct.h>
#include <lomiri/download_manager/error.h>
#include <lomiri/download_manager/manager.h>
#include <QCoreApplication>
#include <QSharedPointer>
#include <QTimer>

using namespace Lomiri::DownloadManager;

static void say(const QString& what) {
    std::printf("%s\n", qPrintable(what));
    std::fflush(stdout);
}

static void listen(Download* download, Manager* manager) {
    auto paused = std::make_shared<bool>(false);
    QObject::connect(download, &Download::started, [](bool ok) { say(QString("started %1").arg(ok)); });
    QObject::connect(download, static_cast<void (Download::*)(qulonglong, qulonglong)>(&Download::progress), [=](qulonglong received, qulonglong total) {
        if (!*paused) {
            *paused = true;
            download->pause();
        } else if (received == total) {
            say(QString("progress %1 of %2").arg(received).arg(total));
        }
    });
    QObject::connect(download, &Download::paused, [=](bool ok) {
        say(QString("paused %1, state %2").arg(ok).arg(download->state()));
        download->setThrottle(0);
        download->resume();
    });
    QObject::connect(download, &Download::resumed, [](bool ok) { say(QString("resumed %1").arg(ok)); });
    QObject::connect(download, &Download::processing, [](const QString&) { say("processing"); });
    QObject::connect(download, &Download::finished, [=](const QString& path) {
        say("finished " + path);
        manager->getAllDownloads("test", false,
            [=](DownloadsList* list) {
                // The library has collected what belongs to this program by now, or will have.
                say(QString("listed without error: %1").arg(!list->isError()));
                QCoreApplication::quit();
            },
            [](DownloadsList*) { QCoreApplication::exit(4); });
    });
    QObject::connect(download, static_cast<void (Download::*)(Error*)>(&Download::error), [](Error* error) {
        say("error " + error->errorString());
        QCoreApplication::quit();
    });
}

int main(int argc, char** argv) {
    QCoreApplication app(argc, argv);
    if (argc != 3) return 2;
    Manager* manager = Manager::createSystemManager("", &app);
    QVariantMap metadata;
    metadata["title"] = "a title";
    metadata["custom_number"] = 7;
    QMap<QString, QString> headers;
    headers["X-Test"] = "yes";
    DownloadStruct wanted(argv[1], argv[2], "sha256", metadata, headers);
    manager->createDownload(wanted,
        [=](Download* download) {
            say("title " + download->title());
            say(QString("number %1").arg(download->metadata()["custom_number"].toInt()));
            say("header " + download->headers()["X-Test"]);
            say(QString("state %1, mobile %2").arg(download->state()).arg(download->isMobileDownloadAllowed()));
            listen(download, manager);
            download->setThrottle(400000);
            say(QString("throttle %1").arg(download->throttle()));
            download->start();
        },
        [](Download* download) {
            say("refused " + download->error()->errorString());
            QCoreApplication::exit(3);
        });
    QTimer::singleShot(60000, [] { QCoreApplication::exit(5); });
    return app.exec();
}
