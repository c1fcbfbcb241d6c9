import OpenELM
import SwiftUI

/// Shows a chat and a mail with a model in the app's folder of documents ("OpenELM").
@main
struct ExampleApp: App {
    @State private var assistant = Assistant()
    @Environment(\.scenePhase) private var phase

    var body: some Scene {
        WindowGroup {
            TabView {
                ChatView().tabItem { Label("Chat", systemImage: "bubble.left.and.bubble.right") }
                MailView().tabItem { Label("Mail", systemImage: "envelope") }
            }
            .environment(assistant)
            .task { await assistant.load() }
        }
        .onChange(of: phase) {
            // What the system stops in the background should stop between two tokens.
            if phase == .background { assistant.pause() } else if phase == .active { assistant.resume() }
        }
    }
}
